//! Operations on files, over a connection, against a workspace in which hostile code has been.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::protocol::codec::{self, Frame, FrameCodec};

struct TestFiles {
    directory: TempDir,
    workspace: Arc<Workspace>,
}

impl TestFiles {
    fn new(limit: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("workspace");
        fs::create_dir(&path).unwrap();
        let workspace = Workspace::open(&path, limit, &serde_json::Value::Null).unwrap();
        Self {
            directory,
            workspace: Arc::new(workspace),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("workspace").join(name)
    }

    fn connect(&self, request: &FileRequest) -> Peer {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (slot, done) = std::sync::mpsc::channel::<()>();
        serve(
            theirs,
            Vec::new(),
            Arc::clone(&self.workspace),
            Access::Full,
            slot,
        );
        let mut peer = Peer {
            stream: Some(ours),
            received: bytes::BytesMut::new(),
            done,
        };
        peer.send(Kind::FileRequest, &serde_json::to_vec(request).unwrap());
        peer
    }

    fn ask(&self, request: &FileRequest) -> FileAnswer {
        self.connect(request).answer()
    }

    #[track_caller]
    fn refused(&self, request: &FileRequest) -> FileErrorCode {
        match self.ask(request) {
            FileAnswer::Error { code, .. } => code,
            answer => panic!("{request:?} is answered with {answer:?}"),
        }
    }

    fn write(&self, path: &str, content: &[u8]) -> FileAnswer {
        let mut peer = self.connect(&FileRequest::Write {
            path: path.to_owned(),
            length: Some(content.len() as u64),
        });
        for piece in content.chunks(wire::PIECE) {
            peer.send(Kind::Data, piece);
        }
        peer.send(Kind::End, b"");
        peer.answer()
    }

    fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Vec<u8> {
        let mut peer = self.connect(&FileRequest::Read {
            path: path.to_owned(),
            offset,
            length,
        });
        assert!(matches!(peer.answer(), FileAnswer::Entry { .. }));
        let mut content = Vec::new();
        loop {
            let frame = peer.receive();
            if frame.kind == Kind::End as u8 {
                return content;
            }
            assert_eq!(frame.kind, Kind::Data as u8);
            content.extend_from_slice(&frame.payload);
        }
    }

    fn names(&self, path: &str, after: Option<&str>, limit: u32) -> (Vec<String>, bool) {
        let request = FileRequest::List {
            path: path.to_owned(),
            after: after.map(str::to_owned),
            limit,
        };
        match self.ask(&request) {
            FileAnswer::Entries { entries, more } => {
                (entries.into_iter().map(|entry| entry.path).collect(), more)
            }
            answer => panic!("{answer:?}"),
        }
    }

    /// Everything in the workspace, hidden or not.
    fn everything(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// The other end.
struct Peer {
    stream: Option<UnixStream>,
    received: bytes::BytesMut,
    done: std::sync::mpsc::Receiver<()>,
}

impl Peer {
    fn stream(&self) -> &UnixStream {
        self.stream.as_ref().unwrap()
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) {
        use std::io::Write;
        let mut frame = codec::head(kind as u8, 0, 0, payload.len()).to_vec();
        frame.extend_from_slice(payload);
        // The agent may have had enough.
        let _ = self.stream().write_all(&frame);
    }

    fn receive(&mut self) -> Frame {
        use std::io::Read;
        use tokio_util::codec::Decoder;
        self.stream()
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        loop {
            if let Some(frame) = FrameCodec.decode(&mut self.received).unwrap() {
                return frame;
            }
            let mut piece = [0; 65536];
            let length = self.stream().read(&mut piece).unwrap();
            assert!(length > 0, "the connection stays");
            self.received.extend_from_slice(&piece[..length]);
        }
    }

    fn answer(&mut self) -> FileAnswer {
        let frame = self.receive();
        assert_eq!(frame.kind, Kind::FileAnswer as u8);
        serde_json::from_slice(&frame.payload).unwrap()
    }

    /// Breaks the connection, and waits until that is noticed.
    fn hang_up(mut self) {
        self.stream = None;
        assert!(self.done.recv().is_err(), "the slot is given back");
    }
}

fn list(path: &str) -> FileRequest {
    FileRequest::List {
        path: path.to_owned(),
        after: None,
        limit: 10,
    }
}

fn stat(path: &str) -> FileRequest {
    FileRequest::Stat {
        path: path.to_owned(),
    }
}

fn read(path: &str) -> FileRequest {
    FileRequest::Read {
        path: path.to_owned(),
        offset: 0,
        length: None,
    }
}

fn write(path: &str) -> FileRequest {
    FileRequest::Write {
        path: path.to_owned(),
        length: None,
    }
}

fn make(path: &str) -> FileRequest {
    FileRequest::MakeDir {
        path: path.to_owned(),
    }
}

fn delete(path: &str) -> FileRequest {
    FileRequest::Delete {
        path: path.to_owned(),
    }
}

const ALL: [fn(&str) -> FileRequest; 6] = [list, stat, read, write, make, delete];

#[test]
fn no_path_leads_out_of_the_workspace() {
    let files = TestFiles::new(u64::MAX);
    fs::write(files.directory.path().join("secret"), "x").unwrap();
    fs::create_dir(files.path("sub")).unwrap();
    let long = "n".repeat(256);
    let deep = "d/".repeat(200) + "d";
    for path in [
        "..",
        ".",
        "../secret",
        "/etc/passwd",
        "/",
        "sub/../../secret",
        "sub/..",
        "sub//x",
        "sub/",
        "./sub",
        "sub/./x",
        "a\0b",
        &long,
        &deep,
        ".evercell-upload-1",
        "sub/.evercell-upload-x/y",
    ] {
        for request in ALL {
            let request = request(path);
            assert_eq!(
                files.refused(&request),
                FileErrorCode::BadPath,
                "{request:?}"
            );
        }
    }
    for request in [read(""), write(""), delete("")] {
        assert_eq!(
            files.refused(&request),
            FileErrorCode::BadPath,
            "{request:?}"
        );
    }
    assert_eq!(files.everything(), ["sub"]);
}

#[test]
fn no_link_is_followed() {
    for resolves in [true, false] {
        let files = TestFiles::new(u64::MAX);
        files.workspace.forget_openat2(!resolves);
        let outside = files.directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "x").unwrap();
        symlink(&outside, files.path("out")).unwrap();
        symlink(outside.join("secret"), files.path("file")).unwrap();
        symlink("/proc/self/root", files.path("magic")).unwrap();
        fs::create_dir(files.path("real")).unwrap();
        symlink("real", files.path("inside")).unwrap();
        for path in ["out/secret", "magic/etc", "inside/x"] {
            for request in ALL {
                let request = request(path);
                assert_eq!(
                    files.refused(&request),
                    FileErrorCode::BadPath,
                    "{request:?} {resolves}"
                );
            }
        }
        for request in [
            list("out"),
            read("file"),
            write("file"),
            make("out"),
            read("out"),
        ] {
            assert_eq!(
                files.refused(&request),
                FileErrorCode::BadPath,
                "{request:?} {resolves}"
            );
        }
        // The link itself can be seen and deleted.
        match files.ask(&stat("file")) {
            FileAnswer::Entry { entry } => assert_eq!(entry.kind, FileKind::Link),
            answer => panic!("{answer:?}"),
        }
        for name in ["out", "file", "magic", "inside"] {
            assert_eq!(files.ask(&delete(name)), FileAnswer::Deleted);
        }
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"x");
    }
}

#[test]
fn what_is_no_file_is_neither_read_nor_waited_for() {
    let files = TestFiles::new(u64::MAX);
    let path = files.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(files.path("socket")).unwrap();
    fs::create_dir(files.path("directory")).unwrap();
    for path in ["pipe", "socket", "directory"] {
        assert_eq!(
            files.refused(&read(path)),
            FileErrorCode::WrongKind,
            "{path}"
        );
        assert_eq!(
            files.refused(&write(path)),
            FileErrorCode::WrongKind,
            "{path}"
        );
    }
    for request in [list("pipe"), write("pipe/x"), make("pipe"), make("pipe/x")] {
        assert_eq!(
            files.refused(&request),
            FileErrorCode::WrongKind,
            "{request:?}"
        );
    }
    assert_eq!(files.everything(), ["directory", "pipe", "socket"]);
}

#[test]
fn who_may_only_read_changes_nothing() {
    let files = TestFiles::new(u64::MAX);
    fs::write(files.path("kept"), "x").unwrap();
    for request in [write("kept"), write("new"), make("new"), delete("kept")] {
        let (slot, done) = std::sync::mpsc::channel::<()>();
        let mut peer = Peer {
            stream: Some(serve_left(&files.path(""), slot).unwrap()),
            received: bytes::BytesMut::new(),
            done,
        };
        peer.send(Kind::FileRequest, &serde_json::to_vec(&request).unwrap());
        peer.send(Kind::End, b"");
        assert!(peer.done.recv().is_err(), "it is over without an answer");
    }
    assert_eq!(files.everything(), ["kept"]);
    assert_eq!(fs::read(files.path("kept")).unwrap(), b"x");
}

#[test]
fn a_file_comes_back_as_it_was_written() {
    let files = TestFiles::new(u64::MAX);
    let content: Vec<u8> = (0..3_000_000u32).map(|at| (at % 253) as u8).collect();
    match files.write("a/b/数据.bin", &content) {
        FileAnswer::Entry { entry } => {
            assert_eq!((entry.bytes, entry.kind), (3_000_000, FileKind::File));
            assert!(entry.modified_ms > 1_600_000_000_000);
        }
        answer => panic!("{answer:?}"),
    }
    assert!(files.read("a/b/数据.bin", 0, None) == content);
    assert!(files.read("a/b/数据.bin", 1_000_000, Some(5)) == content[1_000_000..1_000_005]);
    assert!(files.read("a/b/数据.bin", 2_999_999, Some(u64::MAX)) == content[2_999_999..]);
    assert!(files.read("a/b/数据.bin", u64::MAX, None).is_empty());
    let mode = |name: &str| files.path(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("a/b"), mode("a/b/数据.bin")), (0o755, 0o644));
    files.write("a/b/数据.bin", b"new");
    assert_eq!(files.read("a/b/数据.bin", 0, None), b"new");
    assert_eq!(files.refused(&stat("a/c")), FileErrorCode::NotFound);
    assert_eq!(files.refused(&read("x/y")), FileErrorCode::NotFound);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let files = TestFiles::new(u64::MAX);
    fs::write(files.path("kept"), "old").unwrap();
    let mut peer = files.connect(&FileRequest::Write {
        path: "kept".to_owned(),
        length: None,
    });
    peer.send(Kind::Data, &[0; 1000]);
    peer.hang_up();
    assert_eq!(files.everything(), ["kept"]);
    assert_eq!(fs::read(files.path("kept")).unwrap(), b"old");
    assert_eq!(files.workspace.used(), 0);
    // Shorter than announced is not whole either.
    let mut peer = files.connect(&FileRequest::Write {
        path: "kept".to_owned(),
        length: Some(10),
    });
    peer.send(Kind::Data, b"123");
    peer.send(Kind::End, b"");
    assert!(matches!(peer.answer(), FileAnswer::Error { .. }));
    peer.hang_up();
    assert_eq!(files.everything(), ["kept"]);
}

#[test]
fn an_upload_on_its_way_is_not_shown() {
    let files = TestFiles::new(u64::MAX);
    let mut peer = files.connect(&write("new"));
    peer.send(Kind::Data, &[1; 1000]);
    // Once the file is there, it is there under a name of its own.
    while files.everything().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(files.names("", None, 10), (Vec::new(), false));
    peer.send(Kind::End, b"");
    assert!(matches!(peer.answer(), FileAnswer::Entry { .. }));
    assert_eq!(files.names("", None, 10), (vec!["new".to_owned()], false));
}

#[test]
fn the_quota_refuses_at_once_or_on_the_way() {
    let files = TestFiles::new(1_000_000);
    let announced = FileRequest::Write {
        path: "big".to_owned(),
        length: Some(1_000_001),
    };
    assert_eq!(files.refused(&announced), FileErrorCode::QuotaExceeded);
    let mut peer = files.connect(&write("big"));
    for _ in 0..10 {
        peer.send(Kind::Data, &[0; 200_000]);
    }
    match peer.answer() {
        FileAnswer::Error { code, .. } => assert_eq!(code, FileErrorCode::QuotaExceeded),
        answer => panic!("{answer:?}"),
    }
    peer.hang_up();
    assert!(files.everything().is_empty());
    assert!(matches!(
        files.write("fits", &[0; 900_000]),
        FileAnswer::Entry { .. }
    ));
    assert_eq!(files.workspace.used(), 900_000);
}

#[test]
fn a_directory_is_listed_page_by_page() {
    let files = TestFiles::new(u64::MAX);
    fs::create_dir(files.path("d")).unwrap();
    for number in 0..2500 {
        fs::write(files.path(&format!("d/{number:05}")), "").unwrap();
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"d/\xff\xfe");
    fs::write(files.path("").join(Path::new(odd)), "").unwrap();
    let mut seen = Vec::new();
    loop {
        let after = seen
            .last()
            .map(|path: &String| path["d/".len()..].to_owned());
        let (names, more) = files.names("d", after.as_deref(), 700);
        seen.extend(names);
        if !more {
            break;
        }
    }
    let mut expected: Vec<String> = (0..2500).map(|number| format!("d/{number:05}")).collect();
    expected.push("d/\u{fffd}\u{fffd}".to_owned());
    assert_eq!(seen, expected);
    // More than fits an answer is asked for.
    assert_eq!(files.names("d", None, u32::MAX).0.len(), 1000);
    assert_eq!(files.names("d", None, 0).0.len(), 1);
}

#[test]
fn a_directory_goes_with_all_it_holds() {
    let files = TestFiles::new(u64::MAX);
    fs::create_dir_all(files.path(&("t/".to_owned() + &"deep/".repeat(100)))).unwrap();
    for number in 0..3000 {
        fs::write(files.path(&format!("t/{number}")), "").unwrap();
    }
    fs::write(files.directory.path().join("outside"), "").unwrap();
    symlink(files.directory.path(), files.path("t/link")).unwrap();
    assert_eq!(files.ask(&delete("t")), FileAnswer::Deleted);
    assert!(files.everything().is_empty());
    assert!(files.directory.path().join("outside").exists());
    assert_eq!(files.refused(&delete("t")), FileErrorCode::NotFound);
}

#[test]
fn a_request_that_is_none_is_refused() {
    let files = TestFiles::new(u64::MAX);
    let mut peer = files.connect(&stat(""));
    assert!(matches!(peer.answer(), FileAnswer::Entry { .. }));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (slot, done) = std::sync::mpsc::channel::<()>();
    serve(
        theirs,
        Vec::new(),
        Arc::clone(&files.workspace),
        Access::Full,
        slot,
    );
    let mut peer = Peer {
        stream: Some(ours),
        received: bytes::BytesMut::new(),
        done,
    };
    peer.send(Kind::FileRequest, b"{\"op\": \"format\"}");
    assert!(matches!(peer.answer(), FileAnswer::Error { .. }));
}

#[test]
fn what_the_system_says_has_a_kind() {
    for (error, code) in [
        (Errno::NOENT, FileErrorCode::NotFound),
        (Errno::NOSPC, FileErrorCode::DiskFull),
        (Errno::DQUOT, FileErrorCode::DiskFull),
        (Errno::LOOP, FileErrorCode::BadPath),
        (Errno::ACCESS, FileErrorCode::Io),
    ] {
        assert_eq!(FileError::system("x", error).code, code);
    }
}
