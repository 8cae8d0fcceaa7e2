//! The client's side of the native API: where the server is, single requests, and a session's WebSocket.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::hinted;
use super::serve::TOKEN_FILE;
use crate::config::flags::DataFlags;
use crate::config::{Surroundings, Token, data_dir};
use crate::model::event::Seq;
use crate::model::id::SessionId;

/// Which server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerFlags {
    /// Where the server is, with or without the token, as its ready line says.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8888",
        env = "EVERCELL_URL",
        hide_env_values = true
    )]
    url: String,

    /// The server's token.
    ///
    /// Left out: the one in the URL, or for a server on this machine the one in its data directory.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "EVERCELL_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,

    #[command(flatten)]
    data: DataFlags,
}

/// How long a single request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(120);
/// The longest answer to a single request, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// The longest event: a figure of the largest size as base64, and what is around it.
const MAX_EVENT: usize = 128 * 1024 * 1024;

/// A server, as a client knows it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Server {
    client: Client<HttpConnector, Full<Bytes>>,
    authority: String,
    /// What comes before `/v1`, where a proxy put the server below a path.
    prefix: String,
    token: Option<Token>,
}

/// A session's WebSocket.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why no WebSocket could be had.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It may be had later: the server is not there, or stopping.
    ForNow(anyhow::Error),
    /// It will not.
    ForGood(anyhow::Error),
}

impl Server {
    /// Reads where the server is, and finds the token. Connects to nothing.
    pub(super) fn new(flags: &ServerFlags) -> Result<Self> {
        let uri: Uri = flags.url.parse().map_err(|_| bad_url("is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(hinted(
                    "`--url` is https, and this client speaks http only",
                    "forward a port, such as `ssh -L 8888:127.0.0.1:8888 HOST`, and use http://127.0.0.1:8888",
                ));
            }
            _ => return Err(bad_url("has no scheme")),
        }
        let authority = uri
            .authority()
            .ok_or_else(|| bad_url("has no host"))?
            .to_string();
        // The ready line has it behind the `#`, which is no part of what is sent; links may have it in the query.
        let fragment = flags.url.split_once('#').map(|(_, fragment)| fragment);
        let in_url = [fragment, uri.query()]
            .into_iter()
            .flatten()
            .flat_map(|part| part.split('&'))
            .find_map(|pair| pair.strip_prefix("token="));
        let token = match flags.token.as_deref().or(in_url) {
            Some(token) => Some(Token::new(token)?),
            // A token of this machine is for a server on this machine.
            None if is_loopback(&uri) => token_of_this_machine(&flags.data),
            None => None,
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// Where it is, without the token.
    pub(super) fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.prefix)
    }

    /// Opens a session, or finds it open, and returns what the server says of it.
    pub(super) async fn open(&self, session: &SessionId) -> Result<Value> {
        let path = format!("/v1/sessions/{session}");
        self.request(
            Method::PUT,
            &path,
            Some(Value::Object(serde_json::Map::new())),
        )
        .await
    }

    /// The first position of a session's log that is still there.
    pub(super) async fn first(&self, session: &SessionId) -> Result<Seq> {
        let found = self
            .request(Method::GET, &format!("/v1/sessions/{session}"), None)
            .await?;
        number(&found, "first")
    }

    /// Makes a request and returns the JSON of its answer; null if that has no body.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url()))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| self.unreachable(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body
                .map_err(|error| anyhow!(error))
                .context("the server's answer broke off")?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let (status, body) = timeout(REQUEST_LIMIT, answer).await.map_err(|_elapsed| {
            anyhow!(
                "`{}` did not answer within {} s",
                self.url(),
                REQUEST_LIMIT.as_secs()
            )
        })??;
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("`{}` does not answer like an evercell server", self.url()))
    }

    /// Connects to a session's events after a position, and to its commands.
    pub(super) async fn connect(&self, session: &SessionId, after: Seq) -> Result<Socket, Refusal> {
        let url = format!(
            "ws://{}{}/v1/sessions/{session}/ws?after={after}",
            self.authority, self.prefix
        );
        let mut request = url
            .into_client_request()
            .map_err(|error| Refusal::ForGood(error.into()))?;
        if let Some(token) = &self.token {
            let value = format!("Bearer {}", token.reveal());
            let value = value
                .parse()
                .expect("a token has characters of a header only");
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_EVENT))
            .max_frame_size(Some(MAX_EVENT));
        match timeout(
            REQUEST_LIMIT,
            connect_async_with_config(request, Some(config), true),
        )
        .await
        {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(tungstenite::Error::Http(answer))) => {
                let body = answer.body().clone().unwrap_or_default();
                let error = self.refused(answer.status(), &body);
                // A server that stops says 503; the next one may be there soon. So may a proxy's.
                Err(if answer.status().is_server_error() {
                    Refusal::ForNow(error)
                } else {
                    Refusal::ForGood(error)
                })
            }
            Ok(Err(error)) => Err(Refusal::ForNow(self.unreachable(&error))),
            Err(_elapsed) => Err(Refusal::ForNow(anyhow!("`{}` does not answer", self.url()))),
        }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
        let mut cause = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        hinted(
            format!("cannot reach a server at `{}`: {cause}", self.url()),
            "start one with `evercell serve`, or name another one with `--url` or `EVERCELL_URL`",
        )
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> anyhow::Error {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = match body["error"]["message"].as_str() {
            Some(message) => message.to_owned(),
            None => format!("`{}` answers {status}", self.url()),
        };
        if status == StatusCode::UNAUTHORIZED {
            return hinted(
                message,
                "give the URL of the server's ready line with `--url`, or the token with `--token` or `EVERCELL_TOKEN`",
            );
        }
        anyhow!(message)
    }
}

/// Reads a session id as it is typed.
pub(super) fn parse_session(text: &str) -> Result<SessionId, String> {
    text.parse::<SessionId>().map_err(|error| error.to_string())
}

fn bad_url(why: &str) -> anyhow::Error {
    hinted(
        format!("`--url` {why}"),
        "it is the one of the server's ready line, such as http://127.0.0.1:8888",
    )
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The token that a server made for itself, from its data directory: the one named, that of `make run`, or the default.
fn token_of_this_machine(flags: &DataFlags) -> Option<Token> {
    let around = Surroundings::of_process();
    let named = data_dir(flags, &around).ok();
    let of_make_run = flags.data_dir.is_none().then(|| PathBuf::from(".evercell"));
    of_make_run.into_iter().chain(named).find_map(|dir| {
        let text = fs::read_to_string(dir.join(TOKEN_FILE)).ok()?;
        Token::new(text.trim()).ok()
    })
}

/// The number in a field; that there is none is an error of the server's.
pub(super) fn number(value: &Value, field: &str) -> Result<u64> {
    match value[field].as_u64() {
        Some(number) => Ok(number),
        None => bail!("the server's answer has no `{field}`"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ServerFlags,
    }

    fn server(url: &str) -> Result<Server> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TOKEN_FILE), "of-this-machine\n").unwrap();
        let dir = dir.path().to_str().unwrap();
        let line = Line::try_parse_from(["x", "--url", url, "--data-dir", dir]).unwrap();
        Server::new(&line.flags)
    }

    #[test]
    fn the_url_of_the_ready_line_is_enough() {
        for separator in ["#", "?"] {
            let url = format!("http://127.0.0.1:9000/{separator}token=0123456789abcdef");
            let server = server(&url).unwrap();
            assert_eq!(server.url(), "http://127.0.0.1:9000");
            assert_eq!(server.token.unwrap().reveal(), "0123456789abcdef");
        }
    }

    #[test]
    fn a_token_of_this_machine_is_sent_to_this_machine_only() {
        for local in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert_eq!(
                server(local).unwrap().token.unwrap().reveal(),
                "of-this-machine"
            );
        }
        assert!(server("http://example.org").unwrap().token.is_none());
    }

    #[test]
    fn a_server_below_a_path_is_found_there() {
        assert_eq!(
            server("http://example.org/evercell/").unwrap().url(),
            "http://example.org/evercell"
        );
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused() {
        for bad in [
            "",
            "127.0.0.1:8888",
            "https://example.org",
            "ftp://example.org",
            "/path",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
