//! A client made of channels against the loop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::PollSender;

use super::*;
use crate::api::native::commands::Op;
use crate::api::native::ws::{BOUNDS, answering};

/// The server's end of a connection.
struct Socket {
    incoming: mpsc::Receiver<Result<Message, ReadFailure>>,
    outgoing: PollSender<Message>,
}

impl Stream for Socket {
    type Item = Result<Message, ReadFailure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.poll_recv(cx)
    }
}

impl Sink<Message> for Socket {
    type Error = <PollSender<Message> as Sink<Message>>::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.outgoing.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: Message) -> Result<(), Self::Error> {
        self.outgoing.start_send_unpin(item)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.outgoing.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.outgoing.poll_close_unpin(cx)
    }
}

/// The client's end, and what the server's end runs on.
struct Client {
    say: mpsc::Sender<Result<Message, ReadFailure>>,
    hear: mpsc::Receiver<Message>,
    log: mpsc::Sender<Result<Option<Vec<Message>>, ApiError>>,
    /// A permit for each command that may be answered.
    answers: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
    stopping: CancellationToken,
    serving: JoinHandle<End>,
}

struct Log(mpsc::Receiver<Result<Option<Vec<Message>>, ApiError>>);

impl Events for Log {
    async fn next(&mut self) -> Result<Option<Vec<Message>>, ApiError> {
        match self.0.recv().await {
            Some(next) => next,
            None => std::future::pending().await,
        }
    }

    fn bad_news(&self, error: &ApiError) -> Option<Message> {
        Some(Message::Text(error.code().as_str().into()))
    }
}

impl Client {
    /// A connection whose commands are answered at once, with their order.
    fn connect() -> Self {
        Self::connect_with(1000, 1000)
    }

    fn connect_with(room: usize, answers: usize) -> Self {
        let (say, incoming) = mpsc::channel(1000);
        let (outgoing, hear) = mpsc::channel(room);
        let (log, events) = mpsc::channel(1000);
        let answers = Arc::new(Semaphore::new(answers));
        let begun = Arc::new(AtomicUsize::new(0));
        let stopping = CancellationToken::new();
        let carry_out = {
            let (answers, begun) = (answers.clone(), begun.clone());
            move |_: Op| {
                let (answers, begun) = (answers.clone(), begun.clone());
                async move {
                    let n = begun.fetch_add(1, Ordering::Relaxed);
                    answers.acquire().await.unwrap().forget();
                    Ok(json!({"n": n}))
                }
            }
        };
        let socket = Socket {
            incoming,
            outgoing: PollSender::new(outgoing),
        };
        let token = stopping.clone();
        let serving = tokio::spawn(async move {
            let stopping = async {
                token.cancelled().await;
                End::Stopping
            };
            serve(socket, Log(events), answering(carry_out), BOUNDS, stopping).await
        });
        Self {
            say,
            hear,
            log,
            answers,
            begun,
            stopping,
            serving,
        }
    }

    async fn say(&self, text: &str) {
        self.say.send(Ok(Message::Text(text.into()))).await.unwrap();
    }

    async fn ping(&self, n: usize) {
        self.say(&json!({"op": "ping", "ref": n}).to_string()).await;
    }

    async fn log(&self, events: &[&str]) {
        let events = events
            .iter()
            .map(|event| Message::Text((*event).into()))
            .collect();
        self.log.send(Ok(Some(events))).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        self.hear.recv().await.expect("the connection is open")
    }

    async fn hear_text(&mut self) -> String {
        match self.hear().await {
            Message::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    async fn hear_json(&mut self) -> Value {
        serde_json::from_str(&self.hear_text().await).unwrap()
    }

    async fn hear_close(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(Some(frame)) = self.hear().await {
                return (frame.code, frame.reason.to_string());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_go_out_as_they_are_stored() {
    let mut client = Client::connect();
    client.log(&["{\"seq\":1}", "{\"seq\":2}"]).await;
    client.log(&["{\"seq\":3}"]).await;
    for n in 1..=3 {
        assert_eq!(client.hear_text().await, format!("{{\"seq\":{n}}}"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_command_is_answered_with_its_ref() {
    let mut client = Client::connect();
    client.say(r#"{"op": "ping", "ref": "a"}"#).await;
    assert_eq!(
        client.hear_json().await,
        json!({"ref": "a", "ok": true, "reply": {"n": 0}})
    );
    client.say(r#"{"op": "explode", "ref": "b"}"#).await;
    let reply = client.hear_json().await;
    assert_eq!(
        (&reply["ref"], &reply["ok"], &reply["error"]["code"]),
        (&json!("b"), &json!(false), &json!("unknown_op"))
    );
    client.say("{").await;
    let reply = client.hear_json().await;
    assert_eq!(
        (&reply["ref"], &reply["error"]["code"]),
        (&Value::Null, &json!("bad_json"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_binary_message_is_refused_and_the_connection_goes_on() {
    let mut client = Client::connect();
    client
        .say
        .send(Ok(Message::Binary(Bytes::from_static(b"\0"))))
        .await
        .unwrap();
    assert_eq!(client.hear_json().await["error"]["code"], "binary_message");
    client.ping(1).await;
    assert_eq!(client.hear_json().await["ref"], 1);
}

#[tokio::test(start_paused = true)]
async fn commands_are_begun_in_their_order() {
    let mut client = Client::connect_with(1000, 0);
    for n in 0..20 {
        client.ping(n).await;
    }
    client.answers.add_permits(20);
    let mut seen = Vec::new();
    for _ in 0..20 {
        let reply = client.hear_json().await;
        assert_eq!(reply["reply"]["n"], reply["ref"]);
        seen.push(reply["ref"].as_u64().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_client_with_too_many_commands_under_way_is_not_read_from() {
    let mut client = Client::connect_with(1000, 0);
    let most = BOUNDS.commands;
    for n in 0..2 * most {
        client.ping(n).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(client.begun.load(Ordering::Relaxed), most);
    client.answers.add_permits(2 * most);
    for _ in 0..2 * most {
        client.hear_json().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_commands_are_too_long_together_is_not_read_from() {
    let mut client = Client::connect_with(1000, 0);
    let long = "x".repeat(BOUNDS.bytes / 4);
    for _ in 0..6 {
        client
            .say(&json!({"op": "complete", "ref": 1, "code": long}).to_string())
            .await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(client.begun.load(Ordering::Relaxed), 4);
    client.answers.add_permits(6);
    for _ in 0..6 {
        client.hear_json().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_read_from_is_not_silent() {
    let mut client = Client::connect_with(1000, 0);
    for n in 0..=BOUNDS.commands {
        client.ping(n).await;
    }
    sleep(10 * BOUNDS.silence).await;
    assert!(!client.serving.is_finished());
    client.answers.add_permits(2 * BOUNDS.commands);
    let mut replies = 0;
    while replies <= BOUNDS.commands {
        replies += usize::from(matches!(client.hear().await, Message::Text(_)));
    }
    // From then on it is.
    assert_eq!(client.hear_close().await.0, 4408);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_when_the_session_ends_is_answered() {
    let mut client = Client::connect_with(1000, 0);
    for n in 0..3 {
        client.ping(n).await;
    }
    sleep(Duration::from_secs(1)).await;
    client.log.send(Ok(None)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    client.answers.add_permits(3);
    for _ in 0..3 {
        client.hear_json().await;
    }
    assert_eq!(client.hear_close().await.0, 1000);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_in_time_does_not_hold_up_the_end() {
    let mut client = Client::connect_with(1000, 0);
    client.ping(1).await;
    sleep(Duration::from_secs(1)).await;
    client.log.send(Ok(None)).await.unwrap();
    assert_eq!(client.hear_close().await.0, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_reply_overtakes_a_flood() {
    // Room for few messages: the flood waits for the client.
    let mut client = Client::connect_with(2, 1000);
    let flood: Vec<String> = (0..1000).map(|n| format!("{{\"seq\":{n}}}")).collect();
    client
        .log(&flood.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    sleep(Duration::from_secs(1)).await;
    client.ping(7).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        client.begun.load(Ordering::Relaxed),
        1,
        "carried out although nothing can be sent"
    );
    let mut before = 0;
    while client.hear_json().await.get("ref").is_none() {
        before += 1;
    }
    assert!(before < 10, "{before} events came first");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go() {
    let mut client = Client::connect();
    let began = Instant::now();
    assert_eq!(client.hear().await, Message::Ping(Bytes::new()));
    assert_eq!(client.hear_close().await.0, 4408);
    assert_eq!(client.serving.await.unwrap(), End::Silent);
    assert_eq!(began.elapsed(), BOUNDS.silence);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays() {
    let mut client = Client::connect();
    for _ in 0..10 {
        assert_eq!(client.hear().await, Message::Ping(Bytes::new()));
        client
            .say
            .send(Ok(Message::Pong(Bytes::new())))
            .await
            .unwrap();
    }
    client.ping(1).await;
    assert_eq!(client.hear_json().await["ref"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_stays_as_long_as_it_takes_something() {
    let mut client = Client::connect_with(1, 1000);
    let flood: Vec<String> = (0..20).map(|n| format!("{{\"seq\":{n}}}")).collect();
    client
        .log(&flood.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let mut events = 0;
    while events < 20 {
        sleep(Duration::from_secs(30)).await;
        if let Message::Text(_) = client.hear().await {
            events += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_any_more_is_let_go() {
    let client = Client::connect_with(1, 1000);
    client.log(&["{}", "{}", "{}", "{}"]).await;
    assert_eq!(client.serving.await.unwrap(), End::Silent);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_by_its_code() {
    let mut client = Client::connect();
    client.log.send(Ok(None)).await.unwrap();
    assert_eq!(
        client.hear_close().await,
        (1000, "the session has ended".to_owned())
    );

    let mut client = Client::connect();
    client.stopping.cancel();
    assert_eq!(client.hear_close().await.0, 1001);

    let mut client = Client::connect();
    client.say.send(Err(ReadFailure::BadText)).await.unwrap();
    assert_eq!(client.hear_close().await.0, 1007);

    let mut client = Client::connect();
    client.say.send(Err(ReadFailure::TooLarge)).await.unwrap();
    assert_eq!(client.hear_close().await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn bad_news_is_told_before_the_end() {
    let mut client = Client::connect();
    let error = ApiError::new(Code::EventsTrimmed, "gone").with("first_available", 41);
    client.log.send(Err(error)).await.unwrap();
    assert_eq!(client.hear_text().await, "events_trimmed");
    assert_eq!(
        client.hear_close().await,
        (4410, "events_trimmed".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_it() {
    let client = Client::connect();
    client.say.send(Ok(Message::Close(None))).await.unwrap();
    assert_eq!(client.serving.await.unwrap(), End::ClientLeft);

    let client = Client::connect();
    drop(client.say);
    assert_eq!(client.serving.await.unwrap(), End::ClientLeft);
}
