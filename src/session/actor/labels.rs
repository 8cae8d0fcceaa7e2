//! Labels: words that clients keep with a session, such as its title.

use std::collections::BTreeMap;

use super::Actor;
use crate::model::event::Event;
use crate::model::settings::{Settings, check_labels};
use crate::session::command::{Denied, SessionError};
use crate::store::SessionUpdate;

impl Actor {
    /// Changes those that are named; one without a text is taken away. A server that dies before the event is written has changed them nevertheless.
    pub(super) async fn label(
        &mut self,
        changes: BTreeMap<String, Option<String>>,
    ) -> Result<(), SessionError> {
        let mut labels = self.settings.labels.clone();
        for (name, text) in changes {
            match text {
                Some(text) => drop(labels.insert(name, text)),
                None => drop(labels.remove(&name)),
            }
        }
        if labels == self.settings.labels {
            return Ok(());
        }
        check_labels(&labels).map_err(Denied::Settings)?;
        let event = Event::LabelsChanged {
            labels: labels.clone(),
        };
        let settings = Settings {
            labels,
            ..self.settings.clone()
        };
        let update = SessionUpdate {
            settings: Some(settings.clone()),
            ..SessionUpdate::default()
        };
        self.store.update_session(self.key, update).await?;
        self.settings = settings.clone();
        self.view.send_modify(|view| view.settings = settings);
        self.pending.push(event);
        Ok(())
    }
}
