//! Tests of the whole backend on this host.
