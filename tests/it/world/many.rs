//! A hundred sessions at once, each private.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::server::Server;

#[tokio::test]
async fn a_hundred_sessions_live_at_once_and_each_is_private() {
    let server = Server::start_with(&["--pool", "4", "--max-sessions", "120"]).await;
    let ids: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    // Ten at a time: the point is that they live together, not how fast they come.
    for ids in ids.chunks(10) {
        join_all(ids.iter().map(async |id| {
            server.open_with(id, json!({ "env": { "MINE": id } })).await;
            let code = format!(
                "import pandas as pd, os, random, numpy as np\nmine = pd.DataFrame({{'id': ['{id}']}})\n\
                 open('mine.txt', 'w').write('{id}'); open('/tmp/mine.txt', 'w').write('{id}')"
            );
            assert_eq!(server.run(id, &code).await["status"], "ok");
        }))
        .await;
    }
    let mut random = HashSet::new();
    for ids in ids.chunks(10) {
        let found = join_all(ids.iter().map(async |id| {
            server.prints(
                id,
                "import glob\n\
                 print(mine.id[0], os.environ['MINE'], open('mine.txt').read(), open('/tmp/mine.txt').read())\n\
                 print(sorted(os.listdir('.')), sorted(p for p in glob.glob('/tmp/*') if p != '/tmp/home'), [n for n in globals() if n.startswith('mine')])\n\
                 print(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3, [l.split(':')[0].strip() for l in open('/proc/self/net/dev') if ':' in l])\n\
                 print(random.random(), np.random.rand(), np.random.default_rng().random())",
            )
            .await
        }))
        .await;
        for (id, printed) in ids.iter().zip(found) {
            let lines: Vec<&str> = printed.lines().collect();
            assert_eq!(lines[0], format!("{id} {id} {id} {id}"));
            assert_eq!(lines[1], "['mine.txt'] ['/tmp/mine.txt'] ['mine']");
            // Its own process with its twin, of which one may just be replaced by the next, and no interface but its own loopback.
            assert_eq!(lines[2], "True ['lo']");
            for number in lines[3].split(' ') {
                assert!(
                    random.insert(number.to_owned()),
                    "two kernels drew {number}"
                );
            }
        }
    }
    let sessions = server.get("/v1/sessions?limit=200").await.json();
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(100));
}
