//! Who may ask: the token, and what keeps a web page of another site from asking in its visitor's name.
//!
//! A token comes as `Authorization: Bearer …` (or `token …`), as `?token=…`, or, since browsers can set neither header nor
//! status on a WebSocket, as the subprotocol `evercell.token.…` beside `evercell.v1`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;

use super::Api;
use super::error::{ApiError, Code};

/// The subprotocol that our WebSocket speaks.
pub(crate) const SUBPROTOCOL: &str = "evercell.v1";

/// What comes before a token that is given as a subprotocol: in ours, and in Jupyter's.
const TOKEN_SUBPROTOCOLS: [&str; 2] = ["evercell.token.", "v1.token.websocket.jupyter.org."];

/// The secret that every request must bring. It does not print itself.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Takes a text as the secret.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Whether this is it; takes as long for a near miss as for a wild guess.
    fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Refuses what has no token, and takes the token out of the address, so that nothing behind here can record it.
pub(crate) async fn require_token(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let in_query = take_query_token(request.uri_mut());
    if let Some(token) = &api.config.token {
        let given = header_token(request.headers())
            .or(in_query.map(Cow::Owned))
            .or_else(|| subprotocol_token(request.headers()));
        match given {
            Some(given) if token.is(&given) => {}
            Some(_) => {
                return Err(ApiError::new(
                    Code::Unauthorized,
                    "this is not the token of this server; it is printed when the server starts",
                ));
            }
            None => {
                return Err(ApiError::new(
                    Code::Unauthorized,
                    "a token is needed: send `Authorization: Bearer …`; it is printed when the server starts",
                ));
            }
        }
    }
    Ok(next.run(request).await)
}

/// Refuses requests that a foreign web page makes in its visitor's name.
pub(crate) async fn refuse_foreign_pages(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let host = host(&request);
    if let (Some(allowed), Some(host)) = (&api.config.allowed_hosts, &host)
        && !is_allowed_host(host, allowed)
    {
        return Err(ApiError::new(
            Code::ForeignHost,
            format!(
                "this server is not `{}`; allow the name when starting it, if it is meant to have it",
                host.host()
            ),
        ));
    }
    if is_state_changing(&request)
        && let Some(origin) = request.headers().get(header::ORIGIN)
        && !is_allowed_origin(
            origin.as_bytes(),
            host.as_ref(),
            &api.config.allowed_origins,
        )
    {
        return Err(ApiError::new(
            Code::ForeignOrigin,
            format!(
                "pages of {} may not use this server; allow the origin when starting it",
                String::from_utf8_lossy(origin.as_bytes())
            ),
        ));
    }
    Ok(next.run(request).await)
}

/// Whether a page could do harm by sending this without reading the answer. A WebSocket is a GET, and is not held to CORS.
fn is_state_changing(request: &Request) -> bool {
    let safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    !safe || request.headers().contains_key(header::UPGRADE)
}

/// Which host the client believes it speaks to. Every browser says so; a client that does not is not one.
fn host(request: &Request) -> Option<Authority> {
    let named = request
        .headers()
        .get(header::HOST)
        .map(|value| value.as_bytes().to_owned());
    match named {
        // A host that makes no sense is one that is not allowed.
        Some(bytes) => Some(
            Authority::try_from(bytes.as_slice())
                .unwrap_or_else(|_| Authority::from_static("invalid.invalid")),
        ),
        None => request.uri().authority().cloned(),
    }
}

fn is_allowed_host(host: &Authority, allowed: &[String]) -> bool {
    let name = host.host().trim_end_matches('.');
    let own = ["localhost", "127.0.0.1", "[::1]"];
    own.into_iter()
        .chain(allowed.iter().map(String::as_str))
        .any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn is_allowed_origin(origin: &[u8], host: Option<&Authority>, allowed: &[String]) -> bool {
    if allowed
        .iter()
        .any(|allowed| allowed == "*" || allowed.as_bytes().eq_ignore_ascii_case(origin))
    {
        return true;
    }
    // `null`, as a sandboxed frame says, is nobody's origin.
    let Ok(origin) = Uri::try_from(origin) else {
        return false;
    };
    match (origin.authority(), host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host.as_str()),
        _ => false,
    }
}

fn header_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    known.then(|| Cow::Borrowed(token.trim()))
}

fn subprotocol_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| {
            let named = TOKEN_SUBPROTOCOLS.iter();
            let mut tokens = named.filter_map(|prefix| protocol.trim().strip_prefix(prefix));
            tokens.next()
        })
        .and_then(|token| percent_decode_str(token).decode_utf8().ok())
}

/// Removes `token=…` from the query and returns it.
fn take_query_token(uri: &mut Uri) -> Option<String> {
    let is_token = |pair: &&str| pair.split('=').next() == Some("token");
    let query = uri.query()?;
    let token = query.split('&').find(is_token)?;
    let token = token.split_once('=').map_or("", |(_, value)| value);
    let token = percent_decode_str(token)
        .decode_utf8()
        .ok()
        .map(Cow::into_owned);
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
    let path = if rest.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), rest.join("&"))
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query =
        Some(PathAndQuery::try_from(path).expect("a part of a valid address is valid"));
    *uri = Uri::from_parts(parts).expect("a part of a valid address is valid");
    token
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn authority(text: &str) -> Authority {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_does_not_print_itself() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(…)");
    }

    #[test]
    fn a_token_is_taken_from_either_header() {
        for value in ["Bearer s3cret", "bearer s3cret", "token s3cret"] {
            let headers =
                HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(header_token(&headers).as_deref(), Some("s3cret"));
        }
        let headers = HeaderMap::from_iter([(
            header::AUTHORIZATION,
            HeaderValue::from_static("Basic s3cret"),
        )]);
        assert_eq!(header_token(&headers), None);
    }

    #[test]
    fn a_token_is_taken_from_the_subprotocols() {
        for offered in [
            "evercell.v1, evercell.token.a%2Fb",
            "v1.token.websocket.jupyter.org, v1.token.websocket.jupyter.org.a%2Fb",
        ] {
            let value = HeaderValue::from_static(offered);
            let headers = HeaderMap::from_iter([(header::SEC_WEBSOCKET_PROTOCOL, value)]);
            assert_eq!(subprotocol_token(&headers).as_deref(), Some("a/b"));
        }
    }

    #[test]
    fn a_token_is_taken_out_of_the_query() {
        for (before, token, after) in [
            ("/x?token=a%20b", Some("a b"), "/x"),
            (
                "/x?after=1&token=t&limit=2",
                Some("t"),
                "/x?after=1&limit=2",
            ),
            ("/x?tokens=t", None, "/x?tokens=t"),
            ("/x", None, "/x"),
            ("/x?token", Some(""), "/x"),
        ] {
            let mut uri: Uri = before.parse().unwrap();
            assert_eq!(take_query_token(&mut uri).as_deref(), token, "{before}");
            assert_eq!(uri.to_string(), after);
        }
    }

    #[test]
    fn a_loopback_server_answers_only_to_its_own_names() {
        let configured = ["my.host".to_owned()];
        for own in [
            "localhost:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "LOCALHOST",
            "my.host:80",
            "localhost.",
        ] {
            assert!(is_allowed_host(&authority(own), &configured), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
        ] {
            assert!(
                !is_allowed_host(&authority(foreign), &configured),
                "{foreign}"
            );
        }
    }

    #[test]
    fn an_origin_is_the_servers_own_or_allowed() {
        let host = authority("localhost:8080");
        let allowed = ["https://app.example".to_owned()];
        for good in ["http://localhost:8080", "https://app.example"] {
            assert!(
                is_allowed_origin(good.as_bytes(), Some(&host), &allowed),
                "{good}"
            );
        }
        for bad in [
            "http://localhost:9090",
            "http://evil.example",
            "null",
            "https://app.example.evil",
            "",
            "\u{fffd}",
        ] {
            assert!(
                !is_allowed_origin(bad.as_bytes(), Some(&host), &allowed),
                "{bad}"
            );
        }
    }
}
