//! The examples, run as a reader would run them, and the logs that they leave.

use std::fs;
use std::path::Path;
use std::process::Output;

use evercell::model::event::{Envelope, Event};
use evercell::model::id::CellId;
use insta::assert_snapshot;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::server::{PATIENCE, Server, TOKEN, repository};

#[tokio::test]
async fn a_conversation_about_wine_streams_and_is_found_again() {
    let server = Server::start().await;
    let saved = tempfile::tempdir().unwrap();
    let directory = saved.path().to_str().unwrap();
    let output = example(
        &server,
        "conversation.py",
        &["--session", "wine", "--save", directory],
    )
    .await;

    assert_snapshot!(steady(&output), @r#"
    Session wine is open (created); wine.csv is uploaded: 13,053 bytes.

    Load the file and look at it
        187 rows, 9 of them twice, 26 values missing, cultivars spelled 13 ways
               alcohol  color_intensity  flavanoids  proline
        count   185.00           185.00      185.00   186.00
        mean     13.00             5.02        2.04   737.65
        std       0.80             2.33        1.00   313.87
        min      11.41             1.28        0.34   278.00
        25%      12.34             3.08        1.22   496.25
        50%      13.05             4.60        2.14   660.00
        75%      13.68             6.20        2.89   961.75
        max      14.83            13.00        5.08  1680.00
        [1] N ms

    Clean it
        178 rows left, 0 values missing, 3 names
        [2] N ms

    Group it
                    alcohol  color_intensity  flavanoids  proline
        cultivar
        Barbera       13.15             7.38        0.78   633.12
        Barolo        13.74             5.51        2.98  1115.71
        Grignolino    12.32             3.09        2.10   519.51
        [3] N ms

    Plot it
        a figure of 611 × 351 pixels, saved as figure-1.png
        [4] N ms

    Train a model
        training: 100%|…| 200/200 […]   (redrawn N times)
        right for 98.9% of 89 wines never seen
        [5] N ms

    See how it learned
        a figure of 611 × 251 pixels, saved as figure-2.png
        [6] N ms

    Write a result file
            cultivar   predicted   sure
        130  Barbera  Grignolino  0.589
        [7] N ms

    predictions.csv is downloaded: 89 wines.

    Another client attaches with after=0: N events without a gap, 2 figures in them,
    the same that the first client saw. It asks for `len(clean)`:
        178
    "#);
    for figure in ["figure-1.png", "figure-2.png"] {
        assert!(
            fs::read(saved.path().join(figure))
                .unwrap()
                .starts_with(b"\x89PNG"),
            "{figure}"
        );
    }
    let predictions = fs::read_to_string(saved.path().join("predictions.csv")).unwrap();
    assert_eq!(
        predictions.lines().next(),
        Some("wine,cultivar,predicted,sure")
    );
    assert_eq!(predictions.lines().count(), 1 + 89);

    // The log, as whoever comes next sees it.
    let head = server.get("/v1/sessions/wine").await.json()["head"]
        .as_u64()
        .unwrap();
    let mut later = server.socket("wine", 0).await;
    while later.position() < head {
        assert!(later.receive().await);
    }
    assert_snapshot!(story(&later.seen), @r#"
    session_opened
    kernel_started
    c1: queued, started, stdout, execute_result (text/html, text/plain), finished ok
    c2: queued, started, stdout, finished ok
    c3: queued, started, execute_result (text/html, text/plain), finished ok
    c4: queued, started, display_data (image/png, text/plain), finished ok
    c5: queued, started, stderr, stdout, finished ok
    c6: queued, started, display_data (image/png, text/plain), finished ok
    c7: queued, started, execute_result (text/html, text/plain), finished ok
    c8: queued, started, execute_result (text/plain), finished ok
    "#);
    assert!(
        redraws(&later.seen) > 5,
        "the progress bar moves while the cell runs:\n{}",
        later.transcript()
    );
}

#[tokio::test]
async fn an_agent_reads_its_errors_and_finds_the_answer() {
    let server = Server::start().await;
    let output = example(&server, "agent_loop.py", &[]).await;
    assert_snapshot!(steady(&output), @r#"
    ? Which cultivar makes the strongest wine?

    >>> import pandas as pd
    >>> wine = pd.read_csv('wine.csv')
    >>> wine.groupby('variety')['alcohol'].mean()
    KeyError: 'variety'
    (the cell ended with exception; variables: kept)

    >>> list(wine.columns)
    ['alcohol',
     'malic_acid',
     'ash',
     'alcalinity_of_ash',
     'magnesium',
     'total_phenols',
     'flavanoids',
     'nonflavanoid_phenols',
     'proanthocyanins',
     'color_intensity',
     'hue',
     'od280_od315',
     'proline',
     'cultivar']

    >>> wine.groupby('cultivar')['alcohol'].mean().round(2)
    cultivar
     Barbera       13.29
     Barolo        13.94
     Grignolino    12.47
    BARBERA        13.10
    Barbera        13.23
    Barbera        12.30
    Barolo         13.75
    Barolo         13.51
    GRIGNOLINO     11.41
    Grignolino     12.31
    Grignolino     12.08
    barbera        13.17
    barolo         13.39
    Name: alcohol, dtype: float64

    >>> wine['cultivar'] = wine['cultivar'].str.strip().str.capitalize()
    >>> wine.drop_duplicates().groupby('cultivar')['alcohol'].mean().round(2).sort_values(ascending=False)
    cultivar
    Barolo        13.74
    Barbera       13.15
    Grignolino    12.30
    Name: alcohol, dtype: float64

    ! Barolo, with 13.74 % on average; found in 4 steps.
    "#);
}

/// Runs an example against a server, to its good end.
async fn example(server: &Server, name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(repository().join(".venv/bin/python"));
    command
        .arg(Path::new("examples").join(name))
        .args(arguments)
        .current_dir(repository())
        .env("EVERCELL_URL", format!("http://{}", server.address))
        .env("EVERCELL_TOKEN", TOKEN)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    let output = timeout(2 * PATIENCE, command.output())
        .await
        .expect("the example ends")
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        steady(&output),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    output
}

/// What a program printed, without what differs from run to run: times, speeds, how output was cut into events.
fn steady(output: &Output) -> String {
    let mut steady = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let is_timing = line.ends_with(" ms")
            || line.contains("(redrawn")
            || line.contains("events without a gap");
        let line = match line.split_once("100%|") {
            // The bar is as wide as the speed behind it leaves room for.
            Some((title, rest)) => {
                let redrawn = rest.split_once(']').map_or("", |(_, redrawn)| redrawn);
                format!("{title}100%|…| 200/200 […]{redrawn}")
            }
            None => line.to_owned(),
        };
        let word = |word: &str| {
            if is_timing && word.parse::<u32>().is_ok_and(|n| n > 2) {
                "N".to_owned()
            } else {
                word.to_owned()
            }
        };
        let words: Vec<String> = line.split(' ').map(word).collect();
        steady.push_str(words.join(" ").trim_end());
        steady.push('\n');
    }
    steady
}

/// A log as what happened in each cell; text that was cut into several events stands once.
fn story(events: &[Envelope]) -> String {
    let mut cells: Vec<CellId> = Vec::new();
    let mut lines: Vec<Vec<String>> = Vec::new();
    for Envelope { event, .. } in events {
        let json = serde_json::to_value(event).unwrap();
        let mut fact = json["event"]
            .as_str()
            .unwrap()
            .trim_start_matches("cell_")
            .to_owned();
        if let Event::Stream { .. } = event {
            fact = json["name"].as_str().unwrap().to_owned();
        }
        if let Some(status) = json["status"].as_str() {
            fact = format!("{fact} {status}");
        }
        if let Some(data) = json["data"].as_object() {
            fact = format!(
                "{fact} ({})",
                data.keys()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        match event.cell() {
            None => lines.push(vec![fact]),
            Some(cell) if cells.contains(&cell) => {
                let line = lines.last_mut().unwrap();
                if line.last() != Some(&fact) {
                    line.push(fact);
                }
            }
            Some(cell) => {
                cells.push(cell);
                lines.push(vec![format!("c{}: {fact}", cells.len())]);
            }
        }
    }
    lines
        .iter()
        .map(|line| line.join(", "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// How many events redraw a line.
fn redraws(events: &[Envelope]) -> usize {
    let redraws = |envelope: &&Envelope| matches!(&envelope.event, Event::Stream { text, .. } if text.contains('\r'));
    events.iter().filter(redraws).count()
}
