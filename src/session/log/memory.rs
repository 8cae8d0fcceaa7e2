//! What all logs share of the server's memory: the room for recent events, and buffers that are used again.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lock;

/// How much memory logs may use.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// Recent events that a log keeps in memory while somebody follows it, in bytes.
    pub log_bytes: usize,
    /// The same, in events.
    pub log_events: usize,
    /// Recent events of all logs together, in bytes.
    pub total_bytes: usize,
    /// Recent events that a log keeps in any case, in bytes.
    pub least_bytes: usize,
    /// Buffers that are kept to be used again.
    pub buffers: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            log_bytes: 4 << 20,
            log_events: 512,
            total_bytes: 64 << 20,
            least_bytes: 16 << 10,
            buffers: 16,
        }
    }
}

/// A buffer larger than this is not kept.
const BUFFER_MAX: usize = 4 << 20;

/// What all logs share.
#[derive(Debug)]
pub struct LogMemory {
    config: MemoryConfig,
    used: AtomicUsize,
    buffers: Arc<Buffers>,
}

impl LogMemory {
    /// Nothing used yet.
    pub fn new(config: MemoryConfig) -> Arc<Self> {
        let buffers = Arc::new(Buffers {
            most: config.buffers,
            idle: Mutex::default(),
        });
        Arc::new(Self {
            config,
            used: AtomicUsize::new(0),
            buffers,
        })
    }

    /// Bytes of recent events in the memory of all logs.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn config(&self) -> &MemoryConfig {
        &self.config
    }

    pub(super) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether all logs together have more than they may.
    pub(super) fn is_scarce(&self) -> bool {
        self.used() > self.config.total_bytes
    }

    /// An empty buffer, one that was used before if there is one.
    pub(super) fn buffer(&self) -> Buffer {
        Buffer {
            bytes: lock(&self.buffers.idle).pop().unwrap_or_default(),
            home: Arc::clone(&self.buffers),
        }
    }
}

/// Buffers that wait to be used again.
struct Buffers {
    most: usize,
    idle: Mutex<Vec<Vec<u8>>>,
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

/// A buffer that goes back when the last of its bytes is dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffer {
    /// What was written, to be shared.
    pub(super) fn freeze(self) -> Bytes {
        // A small batch gets an allocation of its own, and the buffer goes back at once: a few bytes in a log's tail must not
        // keep a large buffer from its next use.
        if self.bytes.len() * 4 < self.bytes.capacity() {
            return Bytes::copy_from_slice(&self.bytes);
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == 0 || bytes.capacity() > BUFFER_MAX {
            return;
        }
        bytes.clear();
        let mut idle = lock(&self.home.idle);
        if idle.len() < self.home.most {
            idle.push(bytes);
        }
    }
}
