//! Which sessions there are: opens, finds, lists and deletes them.

use std::sync::Arc;

use super::command::SessionError;
use super::handle::SessionHandle;
use super::log::EventLog;
use super::view::SessionView;
use crate::model::id::{CellId, SessionId};
use crate::model::settings::{Settings, SettingsRequest};
use crate::store::CellRow;

/// What sessions may be.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many may be open at once.
    pub max_sessions: usize,
    /// How many cells of a session may wait.
    pub max_queued: usize,
    /// What a session is given when nothing is asked for.
    pub defaults: Settings,
    /// The most that may be asked for.
    pub ceilings: Settings,
}

/// What opening a session found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none; it is new.
    Created,
    /// It was open already.
    Existing,
    /// It had ended; its log and files are still here, its variables are not.
    Reopened,
}

/// All sessions of this server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {}

impl Sessions {
    /// Opens a session: gets it, makes it, or begins a new life of one that had ended. Safe to race.
    ///
    /// # Errors
    /// There are too many sessions, a wish cannot be had, or the session exists with other settings.
    pub async fn open(&self, id: SessionId, wish: &SettingsRequest) -> Result<(SessionHandle, Opened), SessionError> {
        todo!()
    }

    /// An open session.
    ///
    /// # Errors
    /// It is unknown, or has ended.
    pub async fn find(&self, id: &SessionId) -> Result<SessionHandle, SessionError> {
        todo!()
    }

    /// What a session is doing, also one that has ended.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn view(&self, id: &SessionId) -> Result<SessionView, SessionError> {
        todo!()
    }

    /// The sessions after an id, by id, ended ones included.
    ///
    /// # Errors
    /// The store cannot read.
    pub async fn list(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<SessionView>, SessionError> {
        todo!()
    }

    /// The log of a session, also of one that has ended.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn log(&self, id: &SessionId) -> Result<Arc<EventLog>, SessionError> {
        todo!()
    }

    /// Where in the log a cell's events lie.
    ///
    /// # Errors
    /// Session or cell are unknown.
    pub async fn cell(&self, id: &SessionId, cell: CellId) -> Result<CellRow, SessionError> {
        todo!()
    }

    /// Ends a session and removes all that is left of it: kernel, files and log.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn delete(&self, id: &SessionId) -> Result<(), SessionError> {
        todo!()
    }
}
