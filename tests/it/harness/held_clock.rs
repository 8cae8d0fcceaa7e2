//! A clock that stands still until a test moves it.

/// Keeps the paused clock from moving by itself: time passes only when the test says so.
///
/// Under `start_paused`, tokio moves the clock to the next timer whenever the runtime has nothing to do, and waiting for a plain thread (the
/// store's writer) counts as nothing. One parked blocking task stops that.
#[derive(Debug)]
pub struct HeldClock(Option<std::sync::mpsc::Sender<()>>);

impl HeldClock {
    pub fn new() -> Self {
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || rx.recv());
        Self(Some(tx))
    }
}

impl Drop for HeldClock {
    fn drop(&mut self) {
        // Ends the parked task, so that the runtime can stop.
        self.0.take();
    }
}
