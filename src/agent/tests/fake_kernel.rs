//! A kernel played by the test: it writes into the ring and the pipes as Python would. Its process only waits to be killed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendFlags, SocketAddrUnix, SocketType,
};
use serde_json::{Value, json};

const DATA: usize = 4096;

pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const MESSAGE: u8 = 3;
pub(super) const SYNC: u8 = 4;
pub(super) const REPLY: u8 = 5;

/// The kernel's end of a ring.
pub(crate) struct Writer {
    map: *mut u8,
    capacity: usize,
    doorbell: OwnedFd,
    space: OwnedFd,
}

// SAFETY: nothing behind the pointer is bound to a thread.
unsafe impl Send for Writer {}

impl Writer {
    pub(crate) fn new(ring: OwnedFd, doorbell: OwnedFd, space: OwnedFd) -> Self {
        let size = rustix::fs::fstat(&ring).unwrap().st_size as usize;
        // SAFETY: a new mapping replaces nothing.
        let map = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &ring,
                0,
            )
            .unwrap()
        };
        Self {
            map: map.cast(),
            capacity: size - DATA,
            doorbell,
            space,
        }
    }

    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: aligned, and in the first page of a mapping that lives as long as the process.
        unsafe { &*self.map.add(at).cast() }
    }

    /// Writes anything anywhere.
    pub(crate) fn poke(&self, position: u64, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let at = (position as usize).wrapping_add(index) % self.capacity;
            // SAFETY: `at` is inside of the data.
            unsafe { self.map.add(DATA + at).write_volatile(*byte) };
        }
    }

    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.word(192).swap(0, Ordering::SeqCst) != 0 {
            rustix::io::write(&self.doorbell, &1u64.to_le_bytes()).unwrap();
        }
    }

    /// Writes a record, waiting for room. `false` when there was none within `limit`.
    pub(crate) fn put_within(&self, kind: u8, flags: u8, payload: &[u8], limit: Duration) -> bool {
        let size = 8 + payload.len();
        let head = self.word(64).load(Ordering::Relaxed);
        let fits =
            || head + size as u64 <= self.word(128).load(Ordering::SeqCst) + self.capacity as u64;
        let began = tokio::time::Instant::now();
        while !fits() {
            self.word(256).store(1, Ordering::SeqCst);
            if fits() {
                break;
            }
            self.ring();
            let mut poll = [PollFd::new(&self.space, PollFlags::IN)];
            let wait = rustix::time::Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            if rustix::event::poll(&mut poll, Some(&wait)).unwrap() > 0 {
                rustix::io::read(&self.space, &mut [0; 8]).unwrap();
            }
            if !fits() && began.elapsed() > limit {
                return false;
            }
        }
        let mut record = Vec::with_capacity(size);
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(&[kind, flags, 0, 0]);
        record.extend_from_slice(payload);
        let start = head as usize % self.capacity;
        let first = size.min(self.capacity - start);
        // SAFETY: both pieces lie inside of the data, and there is room for them.
        unsafe {
            ptr::copy_nonoverlapping(record.as_ptr(), self.map.add(DATA + start), first);
            ptr::copy_nonoverlapping(record.as_ptr().add(first), self.map.add(DATA), size - first);
        }
        self.word(64).store(head + size as u64, Ordering::Release);
        self.ring();
        true
    }

    pub(crate) fn put(&self, kind: u8, flags: u8, payload: &[u8]) {
        assert!(
            self.put_within(kind, flags, payload, Duration::from_secs(20)),
            "the agent reads"
        );
    }
}

pub(super) struct FakeKernel {
    pub(super) writer: Writer,
    pub(super) control: UnixStream,
    pub(super) stdout: File,
    pub(super) stderr: File,
    pub(super) process: Child,
    pub(super) jail: Value,
}

impl FakeKernel {
    pub(super) fn print(&self, text: &str) {
        self.writer.put(STDOUT, 0, text.as_bytes());
    }

    pub(super) fn message(&self, kind: u8, json: &Value) {
        let json = json.to_string();
        let mut payload = (json.len() as u32).to_le_bytes().to_vec();
        payload.extend_from_slice(json.as_bytes());
        self.writer.put(kind, 0, &payload);
    }

    pub(super) fn reply(&self, id: u64) {
        self.message(REPLY, &json!({ "id": id }));
    }

    /// What comes next follows what the pipes have carried up to there, counted from their beginning.
    pub(super) fn sync(&self, stdout: u64, stderr: u64) {
        let mut payload = stdout.to_le_bytes().to_vec();
        payload.extend_from_slice(&stderr.to_le_bytes());
        self.writer.put(SYNC, 0, &payload);
    }

    /// The next request.
    pub(super) fn request(&mut self) -> Value {
        let mut length = [0; 4];
        self.control.read_exact(&mut length).unwrap();
        let mut json = vec![0; u32::from_le_bytes(length) as usize];
        self.control.read_exact(&mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Dies as by `os._exit(3)`: what is written is written.
    pub(super) fn exit(mut self, code: i32) {
        // The process is a shell that exits with what it reads.
        let mut stdin = self.process.stdin.take().unwrap();
        writeln!(stdin, "{code}").unwrap();
    }
}

/// Answers requests for kernels.
pub(super) struct FakeZygote {
    kernels: mpsc::Receiver<FakeKernel>,
    refuse: mpsc::Sender<String>,
}

impl FakeZygote {
    pub(super) fn listen(directory: &Path) -> Self {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let address = SocketAddrUnix::new(directory.join("zygote.sock")).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        rustix::net::listen(&socket, 16).unwrap();
        let (sender, kernels) = mpsc::channel();
        let (refuse, refusals) = mpsc::channel();
        // Ends with the process: nothing can wake it from `accept`.
        std::thread::spawn(move || {
            while let Ok(connection) = rustix::net::accept(&socket) {
                if let Ok(refusal) = refusals.try_recv() {
                    let mut request = [0; 65536];
                    rustix::net::recv(&connection, &mut request, RecvFlags::empty()).unwrap();
                    let refusal = json!({ "error": { "step": "net", "message": refusal } });
                    send(&connection, &refusal);
                    continue;
                }
                let kernel = receive(&connection);
                send(&connection, &json!({ "pid": kernel.process.id() }));
                if sender.send(kernel).is_err() {
                    return;
                }
            }
        });
        Self { kernels, refuse }
    }

    /// The next kernel that was asked for.
    pub(super) fn next(&self) -> FakeKernel {
        self.kernels
            .recv_timeout(Duration::from_secs(20))
            .expect("a kernel was asked for")
    }

    /// The next request is refused.
    pub(super) fn refuse(&self, why: &str) {
        self.refuse.send(why.to_owned()).unwrap();
    }
}

fn send(connection: &OwnedFd, answer: &Value) {
    let answer = answer.to_string();
    let mut control = SendAncillaryBuffer::default();
    rustix::net::sendmsg(
        connection,
        &[IoSlice::new(answer.as_bytes())],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

fn receive(connection: &OwnedFd) -> FakeKernel {
    let mut packet = vec![0; 65536];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        connection,
        &mut [IoSliceMut::new(&mut packet)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let request: Value = serde_json::from_slice(&packet[..received.bytes]).unwrap();
    assert_eq!(request["op"], "spawn");
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let names = request["fds"].as_array().unwrap().iter();
    let mut fds: HashMap<&str, OwnedFd> =
        names.map(|name| name.as_str().unwrap()).zip(fds).collect();
    let mut take = |name: &str| fds.remove(name).unwrap_or_else(|| panic!("`{name}` came"));
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel of a test has a process"
    )]
    let process = Command::new("/bin/sh")
        .args(["-c", "trap '' INT; read code; exit $code"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    FakeKernel {
        writer: Writer::new(take("ring"), take("doorbell"), take("space")),
        control: take("control").into(),
        stdout: take("stdout").into(),
        stderr: take("stderr").into(),
        process,
        jail: request["jail"].clone(),
    }
}
