//! The log is the session: whoever attaches, whenever, sees each event once and in order.

use crate::harness::server::Server;

#[tokio::test]
async fn two_clients_of_one_session_see_the_same_events() {
    let server = Server::start().await;
    server.open("shared").await;
    let mut one = server.socket("shared", 0).await;
    let mut two = server.socket("shared", 0).await;
    one.run("x = 20\nprint('from one')").await;
    let last = two.run("print('from two', x)\nx + 1").await;
    let finished = |event: &evercell::model::event::Event| matches!(event, evercell::model::event::Event::CellFinished { cell, .. } if *cell == last);
    one.wait_until(finished).await;
    two.wait_until(finished).await;
    assert_eq!(one.seen, two.seen);
    assert!(two.text_of(last).contains("from two 20"));
}

#[tokio::test]
async fn a_client_that_is_cut_off_at_any_point_gets_the_rest_once() {
    let server = Server::start().await;
    server.open("cut").await;
    let code =
        "for i in range(300):\n    print(i, flush=True)\n    if i % 50 == 0: display(i)\n'done'";
    let mut whole = server.socket("cut", 0).await;
    let cell = whole.run(code).await;
    // A reader that is cut off after every 1, 2, 3, … messages, and comes back to where it was.
    let (mut seen, mut stay) = (Vec::new(), 1);
    let last = whole.position();
    while seen.len() < usize::try_from(last).unwrap() {
        let after = seen
            .last()
            .map_or(0, |envelope: &evercell::model::event::Envelope| {
                envelope.seq
            });
        let mut part = server.socket("cut", after).await;
        for _ in 0..stay {
            if part.position() < last {
                part.receive().await;
            }
        }
        seen.extend(part.cut());
        stay += 1;
    }
    assert_eq!(seen, whole.seen);
    let expected: String = (0..300).map(|i| format!("{i}\n")).collect();
    assert_eq!(whole.text_of(cell), expected);
}

#[tokio::test]
async fn a_client_that_goes_away_changes_nothing() {
    let server = Server::start().await;
    server.open("alone").await;
    let mut first = server.socket("alone", 0).await;
    let cell = first
        .execute("import time\nfor i in range(20):\n    print(i)\n    time.sleep(0.02)\nkept = 42")
        .await;
    let seen = first.cut();
    let mut second = server
        .socket("alone", seen.last().map_or(0, |envelope| envelope.seq))
        .await;
    second
        .wait_until(|event| matches!(event, evercell::model::event::Event::CellFinished { cell: ended, .. } if *ended == cell))
        .await;
    assert_eq!(server.prints("alone", "print(kept)").await, "42\n");
}
