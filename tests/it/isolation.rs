//! The sandbox holds: one test for each thing that hostile code tries.
//!
//! Run as root and as an ordinary user: the two kinds of sandbox are made differently. After each attempt the server and the other session go on.

mod attacks;
mod backend;
mod exhaustion;

use serde_json::{Value, json};

use crate::harness::server::Server;

/// A server with a session that attacks and one that must not notice.
struct Arena {
    server: Server,
}

impl Arena {
    async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// With settings for the attacker.
    async fn with(settings: Value) -> Self {
        let server = Server::start_with(&["--cell-timeout", "40s"]).await;
        server.open("victim").await;
        server
            .prints(
                "victim",
                "import os; secret = 42; open('secret.txt', 'w').write('s3cret')",
            )
            .await;
        server.open_with("attacker", settings).await;
        Self { server }
    }

    /// Runs code in the attacker's session; it must print exactly this.
    async fn attack(&self, code: &str, expected: &str) {
        assert_eq!(
            self.server.prints("attacker", code).await.trim_end(),
            expected,
            "{code}"
        );
    }

    /// Runs code in the attacker's session, however it ends.
    async fn try_attack(&self, code: &str) -> Value {
        self.server.run("attacker", code).await
    }

    /// The server answers, the victim has all it had, and the attacker's session can be used again.
    async fn all_is_well(&self) {
        assert_eq!(self.server.get("/readyz").await.status, 200);
        assert_eq!(
            self.server
                .prints("victim", "print(secret, open('secret.txt').read())")
                .await
                .trim_end(),
            "42 s3cret"
        );
        assert_eq!(
            self.server
                .prints("attacker", "print('still here')")
                .await
                .trim_end(),
            "still here"
        );
    }
}

/// Python that tries something and prints the name of the error, or what it got.
fn tries(expressions: &[&str]) -> String {
    let mut code = String::from(
        "import os, ctypes, socket, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n",
    );
    code.push_str("def call(*a):\n    r = libc.syscall(*a)\n    return errno.errorcode.get(ctypes.get_errno(), 'OK') if r < 0 else 'OK'\n");
    code.push_str("def attempt(f):\n    try: return f()\n    except Exception as e: return type(e).__name__\n");
    for expression in expressions {
        code.push_str(&format!("print(attempt(lambda: {expression}))\n"));
    }
    code
}
