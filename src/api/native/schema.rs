//! The descriptions that programs read: OpenAPI for the routes, JSON Schema for events and for the commands of the WebSocket.
//!
//! All are made from the code. The bodies come from one generator (schemars), the routes from annotations on their handlers (utoipa).

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;

use super::commands::{Op, Reply};
use super::result::CellResult;
use super::view::LiveEnvelope;
use super::{about, cells, checkpoints, events, files, kernel, output, sessions, wire, ws};
use crate::api::error::{Code, ErrorBody};
use crate::model::event::{Envelope, Seq};
use crate::model::settings::SettingsRequest;
use crate::session::{Completions, Inspection, Namespace};

/// The events: what the log holds, and what the WebSocket and the stream send.
pub(crate) fn events() -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<Envelope>();
    schema.insert("title".to_owned(), "An event of a session's log".into());
    schema.to_value()
}

/// What the live view sends besides the events of the log.
pub(crate) fn live() -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<LiveEnvelope>();
    schema.insert(
        "title".to_owned(),
        "What `view=live` sends besides the events of the log".into(),
    );
    schema.to_value()
}

/// The commands that a WebSocket takes, and the replies.
pub(crate) fn commands() -> Value {
    let mut generator = SchemaGenerator::default();
    let command = generator.subschema_for::<Op>().to_value();
    let reply = generator.subschema_for::<Reply>().to_value();
    let mut definitions = generator.take_definitions(true);
    name_codes(&mut definitions);
    let variants = definitions.get_mut("Op").and_then(|op| op.get_mut("oneOf"));
    for variant in variants.and_then(Value::as_array_mut).into_iter().flatten() {
        // It is taken off before the rest is read, so the types do not know it.
        variant["properties"]["ref"] = json!({"type": ["string", "number"], "description": "The client's own; comes back in the reply."});
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Commands and replies of a session's WebSocket",
        "oneOf": [command, reply],
        "$defs": definitions,
    })
}

/// Tells which codes there are.
fn name_codes(definitions: &mut Map<String, Value>) {
    let detail = definitions
        .get_mut("ErrorDetail")
        .expect("every answer can be an error");
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    detail["properties"]["code"]["enum"] = codes.into();
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Evercell",
        description = "A notebook-style kernel session server. The reference with examples is docs/api.md."
    ),
    paths(
        sessions::open,
        sessions::get,
        sessions::list,
        sessions::delete,
        sessions::label,
        sessions::usage,
        cells::submit,
        cells::run,
        cells::get,
        cells::cancel,
        output::get,
        cells::extend,
        cells::extend_running,
        cells::interrupt,
        cells::interrupt_running,
        kernel::restart,
        checkpoints::list,
        checkpoints::hold,
        checkpoints::release,
        checkpoints::rollback,
        checkpoints::undo,
        kernel::answer_input,
        kernel::complete,
        kernel::inspect,
        kernel::is_complete,
        kernel::variables,
        kernel::list_comms,
        kernel::send_comm,
        events::list,
        events::get,
        ws::connect,
        files::list,
        files::download,
        files::head,
        files::upload,
        files::make_dir,
        files::delete,
        about::health,
        about::ready,
        about::version,
        about::openapi,
        about::events_schema,
        about::live_schema,
        about::commands_schema,
    )
)]
struct Routes;

/// A page of the log, as it is spliced.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct EventPage {
    /// In order.
    events: Vec<Envelope>,
    /// The last position of the log.
    head: Seq,
    /// The first position that is still there.
    first: Seq,
    /// Whether there are more: ask again with `after` set to the last `seq`.
    more: bool,
}

/// The routes and their bodies.
pub(crate) fn openapi() -> Value {
    let mut document = serde_json::to_value(Routes::openapi()).expect("our own words are JSON");
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    generator.subschema_for::<(
        SettingsRequest,
        wire::SessionBody,
        wire::SessionList,
        wire::LabelsBody,
        wire::UsageBody,
        wire::ExecuteBody,
        wire::SubmittedBody,
    )>();
    generator.subschema_for::<(
        CellResult,
        output::OutputAnswer,
        wire::ExtendBody,
        wire::DeadlineBody,
        wire::InterruptedBody,
        wire::InputBody,
    )>();
    generator.subschema_for::<(
        wire::CompleteBody,
        Completions,
        wire::InspectBody,
        Inspection,
        wire::IsCompleteBody,
        Namespace,
    )>();
    generator.subschema_for::<(
        wire::CommBody,
        Envelope,
        EventPage,
        LiveEnvelope,
        wire::FileList,
        wire::VersionBody,
        wire::DoneBody,
        ErrorBody,
    )>();
    generator.subschema_for::<(
        checkpoints::CheckpointList,
        checkpoints::HeldBody,
        checkpoints::RollbackBody,
        checkpoints::WentBackBody,
    )>();
    let mut schemas = generator.take_definitions(true);
    name_codes(&mut schemas);
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"] = json!({
        "schemas": schemas,
        "securitySchemes": {
            "header": {"type": "http", "scheme": "bearer"},
            "query": {"type": "apiKey", "in": "query", "name": "token"},
        },
    });
    document["security"] = json!([{"header": []}, {"query": []}]);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_are_a_contract() {
        insta::assert_json_snapshot!("events_schema", events());
    }

    #[test]
    fn what_only_the_live_view_sends_is_a_contract() {
        insta::assert_json_snapshot!("live_schema", live());
    }

    #[test]
    fn the_commands_are_a_contract() {
        insta::assert_json_snapshot!("commands_schema", commands());
    }

    #[test]
    fn the_routes_are_a_contract() {
        insta::assert_json_snapshot!("openapi", openapi(), { ".info.version" => "[version]" });
    }

    #[test]
    fn no_reference_leads_nowhere() {
        for document in [events(), commands(), openapi()] {
            let mut references = Vec::new();
            collect(&document, &mut references);
            assert!(!references.is_empty());
            for reference in references {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }

    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| collect(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
}
