//! Shared notebooks.

use axum::Router;

use crate::api::Api;

/// Its routes.
pub(crate) fn router() -> Router<Api> {
    Router::new()
}
