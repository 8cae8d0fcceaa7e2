//! A few connections that read, on blocking threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::request::Refused;
use super::{StoreError, schema};

/// Connections that read, opened when they are first needed. Who finds all of them busy waits.
#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    count: u32,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(file: PathBuf, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(64);
        Self {
            file,
            count,
            permits: Arc::new(Semaphore::new(count as usize)),
            idle: Arc::default(),
        }
    }

    /// Runs a query on a blocking thread.
    pub(super) async fn read<T: Send + 'static, E: Into<Refused>>(
        &self,
        what: &'static str,
        query: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_closed| StoreError::Closed)?;
        let (file, idle) = (self.file.clone(), Arc::clone(&self.idle));
        let task = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let result = kept
                .map_or_else(|| schema::open_reader(&file), Ok)
                .map_err(Refused::from)
                .and_then(|db| {
                    let result = query(&db).map_err(E::into);
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
                    result
                });
            // Only now: who comes next finds the connection.
            drop(permit);
            result.map_err(|refused| refused.explain(what, &file))
        });
        // A blocking task ends early only when the runtime does.
        task.await.map_err(|_stopped| StoreError::Closed)?
    }

    /// Waits for the queries that run and closes the connections.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(self.count).await;
        self.permits.close();
        drop(all);
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
