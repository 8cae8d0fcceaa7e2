//! The WebSocket over a real connection.

use std::time::Duration;

use evercell::api::serve;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Server, TOKEN};

pub(super) type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Listens, and says where.
pub(super) async fn listen(server: &Server) -> String {
    listen_with(server, 100).await
}

/// Listens with room for so many connections.
async fn listen_with(server: &Server, connections: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(
        listener,
        server.router.clone(),
        connections,
        server.stopping.clone(),
    ));
    address
}

pub(super) async fn connect(address: &str, path: &str) -> Stream {
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .unwrap();
    let protocols = format!("evercell.v1, evercell.token.{TOKEN}");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocols.parse().unwrap());
    let (stream, response) = connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "evercell.v1");
    stream
}

/// The next message that is text, as JSON.
pub(super) async fn hear(stream: &mut Stream) -> Value {
    loop {
        if let Message::Text(text) = stream
            .next()
            .await
            .expect("the connection is open")
            .unwrap()
        {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Reads on to the end, and says with which code the server closed.
async fn hear_close(stream: &mut Stream) -> u16 {
    loop {
        match stream.next().await.expect("the server says why it closes") {
            Ok(Message::Close(Some(frame))) => return frame.code.into(),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn events_go_out_and_commands_come_in() {
    let server = Server::new().await;
    server.open("a").await;
    let address = listen(&server).await;
    let mut stream = connect(&address, "/v1/sessions/a/ws").await;
    stream
        .send(Message::text(
            r#"{"op": "execute", "ref": 1, "code": "print hi"}"#,
        ))
        .await
        .unwrap();
    let (mut names, mut reply) = (Vec::new(), Value::Null);
    while names.last() != Some(&"cell_finished".to_owned()) || reply.is_null() {
        let message = hear(&mut stream).await;
        match message.get("event") {
            Some(name) => names.push(name.as_str().unwrap().to_owned()),
            None => reply = message,
        }
    }
    assert_eq!(
        names,
        [
            "session_opened",
            "kernel_started",
            "cell_queued",
            "cell_started",
            "stream",
            "cell_finished"
        ]
    );
    assert_eq!(
        (&reply["ref"], &reply["ok"], &reply["reply"]["seq"]),
        (&json!(1), &json!(true), &json!(3))
    );
}

#[tokio::test]
async fn a_socket_resumes_after_its_cursor() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "print hi").await;
    let address = listen(&server).await;
    let mut stream = connect(&address, "/v1/sessions/a/ws?after=4").await;
    assert_eq!(hear(&mut stream).await["seq"], 5);
    let mut stream = connect(&address, "/v1/sessions/a/ws?after=99").await;
    assert_eq!(hear(&mut stream).await["error"]["code"], "cursor_ahead");
    assert_eq!(hear_close(&mut stream).await, 4409);
}

#[tokio::test]
async fn a_socket_for_another_log_is_told_so_and_closed() {
    let server = Server::new().await;
    server.open("a").await;
    let address = listen(&server).await;
    let mut stream = connect(&address, "/v1/sessions/a/ws?after=1&log=another").await;
    assert_eq!(hear(&mut stream).await["error"]["code"], "other_log");
    assert_eq!(hear_close(&mut stream).await, 4409);
    let body = server.call("GET", "/v1/sessions/a", "").await.json();
    let path = format!(
        "/v1/sessions/a/ws?after=1&log={}",
        body["log"].as_str().unwrap()
    );
    let mut stream = connect(&address, &path).await;
    assert_eq!(hear(&mut stream).await["seq"], 2);
}

#[tokio::test]
async fn every_command_has_its_reply() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "").await;
    let address = listen(&server).await;
    let mut stream = connect(&address, "/v1/sessions/a/ws?after=5").await;
    for (command, expected) in [
        (r#"{"op": "ping"}"#, "-"),
        (r#"{"op": "session"}"#, "-"),
        (r#"{"op": "interrupt"}"#, "-"),
        (r#"{"op": "extend", "by_ms": 1}"#, "nothing_runs"),
        (
            r#"{"op": "cancel", "cell": "0190b0c0-0000-7000-8000-000000000000"}"#,
            "unknown_cell",
        ),
        (r#"{"op": "input", "value": "x"}"#, "no_input"),
        (r#"{"op": "input"}"#, "bad_field"),
        (r#"{"op": "explode"}"#, "unknown_op"),
        (r#"{"op": "ping", "x": 1}"#, "unknown_field"),
        ("nonsense", "bad_json"),
    ] {
        stream.send(Message::text(command)).await.unwrap();
        let reply = hear(&mut stream).await;
        assert_eq!(
            reply["error"]["code"].as_str().unwrap_or("-"),
            expected,
            "{command}"
        );
    }
    stream.send(Message::binary(vec![0])).await.unwrap();
    assert_eq!(hear(&mut stream).await["error"]["code"], "binary_message");
}

#[tokio::test]
async fn what_is_no_message_closes_the_connection_with_a_reason() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "").await;
    let address = listen(&server).await;
    let mut stream = connect(&address, "/v1/sessions/a/ws?after=5").await;
    let broken = Frame::message(
        Bytes::from_static(b"\xff\xfe"),
        OpCode::Data(Data::Text),
        true,
    );
    stream.send(Message::Frame(broken)).await.unwrap();
    assert_eq!(hear_close(&mut stream).await, 1007);
    let mut stream = connect(&address, "/v1/sessions/a/ws?after=5").await;
    // The rest of a message that is too long is not read: sending it may fail.
    let _ = stream
        .send(Message::text("x".repeat(9 * 1024 * 1024)))
        .await;
    // A client that is still sending may find the connection gone before it has read the reason.
    match stream.next().await {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1009),
        Some(Err(_)) | None => {}
        Some(Ok(other)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_end_of_the_session_and_of_the_server_are_told() {
    let server = Server::new().await;
    server.open("a").await;
    server.open("b").await;
    let address = listen(&server).await;
    let mut a = connect(&address, "/v1/sessions/a/ws").await;
    let mut b = connect(&address, "/v1/sessions/b/ws").await;
    assert_eq!(
        server.call("DELETE", "/v1/sessions/a", "").await.outcome(),
        "204 -"
    );
    assert_eq!(hear_close(&mut a).await, 1000);
    server.stopping.cancel();
    assert_eq!(hear_close(&mut b).await, 1001);
}

#[tokio::test]
async fn a_refusal_comes_before_the_connection() {
    let server = Server::new().await;
    let address = listen(&server).await;
    for (path, status) in [
        ("/v1/sessions/unknown/ws?token=s3cret", 404),
        ("/v1/sessions/a/ws", 401),
    ] {
        match connect_async(format!("ws://{address}{path}")).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), status),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_ended_session_can_still_be_read() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "").await;
    server.house.sessions.stop().await;
    let address = listen(&server).await;
    let mut stream = connect(&address, "/v1/sessions/a/ws").await;
    assert_eq!(hear(&mut stream).await["seq"], 1);
    assert_eq!(hear_close(&mut stream).await, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_its_head_too_slowly_is_cut_off() {
    let server = Server::new().await;
    let address = listen(&server).await;
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    tokio::task::yield_now().await;
    let mut rest = Vec::new();
    let end = async {
        for _ in 0..40 {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    };
    let (read, ()) = tokio::join!(slow.read_to_end(&mut rest), end);
    assert!(read.is_ok() || rest.is_empty());
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
}

#[tokio::test]
async fn a_socket_takes_up_a_place_until_it_is_over() {
    let server = Server::new().await;
    server.open("a").await;
    let address = listen_with(&server, 1).await;
    let socket = connect(&address, "/v1/sessions/a/ws").await;
    let mut next = TcpStream::connect(&address).await.unwrap();
    next.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    let early = timeout(Duration::from_millis(200), next.read_exact(&mut answer)).await;
    assert!(early.is_err(), "there is no room for it");
    drop(socket);
    next.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.0 200");
}
