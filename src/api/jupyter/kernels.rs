//! Kernels over REST. Each is a session: made here it has a UUID for its id, and those that were made otherwise are here, too.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::about::SPEC;
use super::requests::new_kernel;
use super::time::iso;
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::{SessionPath, parse_json, parse_value};
use crate::model::id::SessionId;
use crate::model::settings::SettingsRequest;
use crate::session::view::{SessionView, Status};
use crate::session::{Denied, SessionError, SessionHandle};

/// Environment variables that begin so are settings of the session, not variables of the kernel. A gateway's client passes on only those that begin
/// with `KERNEL_`.
const SETTING: [&str; 2] = ["KERNEL_EVERCELL_", "EVERCELL_"];

/// The header with settings of the session, as JSON.
const SETTINGS_HEADER: &str = "x-evercell-settings";

/// What a kernel is asked to be. Fields that we do not know are passed over, as by the others.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wanted {
    /// The kernel spec.
    pub(crate) name: Option<String>,
    /// Environment variables, and settings among them.
    #[serde(default)]
    pub(crate) env: Option<BTreeMap<String, Value>>,
}

/// A kernel, as Jupyter's clients know one.
pub(crate) fn model(api: &Api, view: &SessionView) -> Value {
    let state = match view.status {
        Status::Starting => "starting",
        Status::Idle => "idle",
        Status::Busy => "busy",
        Status::Restarting => "restarting",
        Status::Dead | Status::Ended => "dead",
    };
    json!({
        "id": view.id,
        "name": SPEC,
        "last_activity": iso(view.active_at_ms),
        "execution_state": state,
        "connections": api.jupyter.clients.connected(&view.id),
    })
}

/// An open kernel.
pub(crate) async fn find(api: &Api, id: &SessionId) -> Result<SessionHandle, ApiError> {
    match api.sessions.find(id).await {
        Err(SessionError::Denied(Denied::UnknownSession(_) | Denied::Ended)) => {
            let text = format!("Kernel does not exist: {id}");
            Err(ApiError::new(Code::UnknownSession, text))
        }
        found => Ok(found?),
    }
}

pub(crate) fn no_such_spec(name: &str) -> ApiError {
    let text = format!("No such kernel named {name}; there is `{SPEC}`");
    ApiError::new(Code::UnknownRoute, text)
}

/// Makes a kernel.
pub(crate) async fn open(
    api: &Api,
    wanted: &Wanted,
    headers: &HeaderMap,
    labels: BTreeMap<String, String>,
) -> Result<SessionHandle, ApiError> {
    if let Some(name) = wanted
        .name
        .as_deref()
        .filter(|name| !name.is_empty() && *name != SPEC)
    {
        return Err(no_such_spec(name));
    }
    let mut wish = wish(wanted, headers)?;
    if let Some((cell_ms, ceiling_ms)) = api.jupyter.config.cell_ms
        && (wish.cell_ms, wish.ceiling_ms) == (None, None)
    {
        (wish.cell_ms, wish.ceiling_ms) = (Some(cell_ms), Some(ceiling_ms));
    }
    wish.labels = labels;
    let (handle, _) = api.sessions.open(new_kernel(), &wish).await?;
    Ok(handle)
}

/// What is wished for: in the environment, and in a header, which counts more.
fn wish(wanted: &Wanted, headers: &HeaderMap) -> Result<SettingsRequest, ApiError> {
    let mut settings = Map::new();
    let mut env = BTreeMap::new();
    for (name, value) in wanted.env.iter().flatten() {
        // Numbers are what some clients put where Jupyter has text.
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        match SETTING.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            Some(setting) => {
                let value = text.parse::<u64>().map_or(Value::String(text), Value::from);
                settings.insert(setting.to_ascii_lowercase(), value);
            }
            None => drop(env.insert(name.clone(), text)),
        }
    }
    if let Some(header) = headers.get(SETTINGS_HEADER) {
        settings.extend(parse_json::<Map<String, Value>>(header.as_bytes())?);
    }
    let mut wish: SettingsRequest = parse_value(Value::Object(settings))?;
    env.extend(wish.env);
    wish.env = env;
    Ok(wish)
}

/// The body of a request; nothing is an empty object, and what is said of its type does not matter.
pub(crate) fn body<T: serde::de::DeserializeOwned + Default>(bytes: &Bytes) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) || bytes.trim_ascii() == b"null" {
        return Ok(T::default());
    }
    parse_json(bytes)
}

/// The kernels that are open.
pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<Value>> {
    let open = api.sessions.open_ones();
    Json(open.iter().map(|view| model(&api, view)).collect())
}

/// Starts a kernel.
pub(crate) async fn start(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let wanted: Wanted = body(&bytes)?;
    let handle = open(&api, &wanted, &headers, BTreeMap::new()).await?;
    let model = model(&api, &handle.view());
    Ok(created(&format!("/api/kernels/{}", handle.id()), model))
}

/// Something was made, and is to be found there.
pub(crate) fn created(place: &str, model: Value) -> Response {
    let mut response = (StatusCode::CREATED, Json(model)).into_response();
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// What a kernel is doing.
pub(crate) async fn get(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<Value>, ApiError> {
    let handle = find(&api, &id).await?;
    Ok(Json(model(&api, &handle.view())))
}

/// Ends a kernel, and removes what is left of it.
pub(crate) async fn shut_down(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<StatusCode, ApiError> {
    find(&api, &id).await?;
    remove(&api, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a kernel; one that is gone already is gone.
pub(crate) async fn remove(api: &Api, id: &SessionId) -> Result<(), ApiError> {
    match api.sessions.delete(id).await {
        Ok(()) | Err(SessionError::Denied(Denied::UnknownSession(_))) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Interrupts the cell that runs.
pub(crate) async fn interrupt(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<StatusCode, ApiError> {
    find(&api, &id).await?.interrupt(None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces the kernel by a new one, and waits until it is there.
pub(crate) async fn restart(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<Value>, ApiError> {
    let handle = find(&api, &id).await?;
    handle.restart().await?;
    handle.started().await;
    Ok(Json(model(&api, &handle.view())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_from_the_environment_and_a_header() {
        let wanted: Wanted = serde_json::from_value(json!({
            "env": {"KERNEL_EVERCELL_CELL_MS": "5000", "EVERCELL_IDLE_MS": 7, "KERNEL_USERNAME": "u", "A": 1},
        }))
        .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            SETTINGS_HEADER,
            HeaderValue::from_static(r#"{"cell_ms": 6000, "env": {"B": "2"}}"#),
        );
        let wish = wish(&wanted, &headers).unwrap();
        assert_eq!((wish.cell_ms, wish.idle_ms), (Some(6000), Some(7)));
        let names: Vec<_> = wish.env.keys().collect();
        assert_eq!(names, ["A", "B", "KERNEL_USERNAME"]);
    }

    #[test]
    fn a_setting_that_there_is_not_is_refused() {
        let wanted: Wanted =
            serde_json::from_value(json!({"env": {"EVERCELL_CEL_MS": "1"}})).unwrap();
        let error = wish(&wanted, &HeaderMap::new()).unwrap_err();
        assert_eq!(error.code(), Code::UnknownField);
    }
}
