//! The reading end of the ring: memory shared with the kernel, which may write into it what and when it likes.
//!
//! The layout is in `kernel-image/PROTOCOL.md`. Nothing is believed: what is read is copied out first and checked then, the position up to
//! which was read is our own, and a length that cannot be ends the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

const MAGIC: u64 = 0x3147_4e49_5243_5645;
const HEADER: usize = 4096;
const CAPACITY_AT: usize = 8;
const HEAD_AT: usize = 64;
const TAIL_AT: usize = 128;
const READER_SLEEPING_AT: usize = 192;
const WRITER_WAITING_AT: usize = 256;
const PIPE_EPOCH_AT: usize = 320;
/// Of standard output; that of standard error is in the next word.
const PIPE_READ_AT: usize = 328;

/// How many bytes of a record come before its payload.
pub(crate) const RECORD_HEAD: usize = 8;

/// How the kernel broke its protocol. It is killed for it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Violation {
    /// More written than there is room.
    #[error("the ring claims to hold {0} bytes")]
    Head(u64),
    /// A record that does not fit.
    #[error("a record of {0} bytes is outside of the protocol")]
    Length(u32),
    /// The rest of a record is missing.
    #[error("a record of {length} bytes is announced, {held} bytes are there")]
    Cut {
        /// What its head says.
        length: u32,
        /// What is there.
        held: u64,
    },
    /// An unknown kind.
    #[error("{0} is no kind of record")]
    Kind(u8),
    /// A record of a kind whose content is malformed.
    #[error("a {0} record is malformed")]
    Content(&'static str),
    /// Something between the parts of a message.
    #[error("a record of kind {found} came between the parts of one of kind {expected}")]
    Parts {
        /// The kind whose parts were expected.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// A message without end.
    #[error("a message has more than {0} bytes")]
    Message(usize),
    /// A reply that nobody asked for.
    #[error("a reply came that nobody asked for")]
    Reply,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// How long its payload is; that much is there.
    pub(crate) length: usize,
    /// What it is.
    pub(crate) kind: u8,
    /// Whether more parts follow, and the like.
    pub(crate) flags: u8,
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Ring {
    map: NonNull<u8>,
    capacity: usize,
    /// How much was read. The copy in the shared memory is for the writer only.
    tail: u64,
    /// How much of that the writer was told.
    published: u64,
    /// Odd while a pipe is being read.
    pipe_epoch: u64,
}

// SAFETY: the mapping belongs to this value alone, and no thread-bound state is behind it.
unsafe impl Send for Ring {}

impl Ring {
    /// Makes a ring and the descriptor by which the kernel maps it. `capacity` is a power of two.
    pub(crate) fn create(capacity: usize) -> io::Result<(Self, OwnedFd)> {
        assert!(capacity.is_power_of_two(), "the protocol says so");
        let memory = rustix::fs::memfd_create(
            "evercell-ring",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&memory, (HEADER + capacity) as u64)?;
        // Were it possible to shrink it, a look into it would be SIGBUS.
        rustix::fs::fcntl_add_seals(
            &memory,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        )?;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let map = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                HEADER + capacity,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &memory,
                0,
            )?
        };
        let ring = Self {
            map: NonNull::new(map.cast()).expect("mmap does not return null"),
            capacity,
            tail: 0,
            published: 0,
            pipe_epoch: 2,
        };
        ring.word(0).store(MAGIC, Ordering::Relaxed);
        ring.word(PIPE_EPOCH_AT)
            .store(ring.pipe_epoch, Ordering::Relaxed);
        ring.word(CAPACITY_AT)
            .store(capacity as u64, Ordering::Release);
        Ok((ring, memory))
    }

    /// The next record, if there is one. It stays the next until [`Ring::consume`].
    pub(crate) fn next(&self) -> Result<Option<Record>, Violation> {
        let held = self.held();
        if held == 0 {
            return Ok(None);
        }
        if held > self.capacity as u64 {
            return Err(Violation::Head(held));
        }
        if held < RECORD_HEAD as u64 {
            return Err(Violation::Cut {
                length: RECORD_HEAD as u32,
                held,
            });
        }
        let mut head = [0; RECORD_HEAD];
        self.copy(0, &mut head);
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if length as usize > self.capacity / 2 {
            return Err(Violation::Length(length));
        }
        if (RECORD_HEAD + length as usize) as u64 > held {
            return Err(Violation::Cut { length, held });
        }
        Ok(Some(Record {
            length: length as usize,
            kind: head[4],
            flags: head[5],
        }))
    }

    /// Copies bytes out, beginning `ahead` bytes after what was consumed.
    ///
    /// # Panics
    /// If that is more than the ring can hold.
    pub(crate) fn copy(&self, ahead: usize, into: &mut [u8]) {
        assert!(
            ahead + into.len() <= self.capacity,
            "no record is longer than the ring"
        );
        let start = (self.tail as usize).wrapping_add(ahead) & (self.capacity - 1);
        let first = into.len().min(self.capacity - start);
        // SAFETY: `start + first` and the rest are at most `capacity`, so both reads are inside of the mapping, which cannot shrink. The other
        // process may write there meanwhile: then the bytes are whatever they are, and nothing depends on them being right.
        unsafe {
            let data = self.map.as_ptr().add(HEADER);
            ptr::copy_nonoverlapping(data.add(start), into.as_mut_ptr(), first);
            ptr::copy_nonoverlapping(data, into.as_mut_ptr().add(first), into.len() - first);
        }
    }

    /// Moves on. The writer is told by [`Ring::publish`], and by itself after every quarter of the ring.
    pub(crate) fn consume(&mut self, length: usize) {
        self.tail = self.tail.wrapping_add(length as u64);
    }

    /// Whether the writer should hear now how far reading got, so that it goes on while we do.
    pub(crate) fn is_publish_due(&self) -> bool {
        self.tail.wrapping_sub(self.published) >= self.capacity as u64 / 4
    }

    /// Tells the writer how far reading got. Returns whether it waits for that and has to be woken.
    pub(crate) fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        self.word(TAIL_AT).store(self.tail, Ordering::Release);
        // The writer announces that it waits and then looks at the tail; here it is the other way round.
        fence(Ordering::SeqCst);
        let waiting = self.word(WRITER_WAITING_AT);
        waiting.load(Ordering::Relaxed) != 0 && {
            waiting.store(0, Ordering::Relaxed);
            true
        }
    }

    /// Says that a pipe is about to be read: what the kernel sees of the pipes meanwhile does not fit together.
    pub(crate) fn begin_pipe_read(&mut self) {
        self.pipe_epoch |= 1;
        self.word(PIPE_EPOCH_AT)
            .store(self.pipe_epoch, Ordering::SeqCst);
    }

    /// Says how much was read from each pipe so far.
    pub(crate) fn end_pipe_read(&mut self, read: [u64; 2]) {
        for (word, read) in read.into_iter().enumerate() {
            self.word(PIPE_READ_AT + 8 * word)
                .store(read, Ordering::Relaxed);
        }
        self.pipe_epoch += 1;
        self.word(PIPE_EPOCH_AT)
            .store(self.pipe_epoch, Ordering::Release);
    }

    /// Asks for the doorbell.
    pub(crate) fn announce_sleep(&self) {
        self.word(READER_SLEEPING_AT).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Asks for the doorbell no more.
    pub(crate) fn announce_awake(&self) {
        let sleeping = self.word(READER_SLEEPING_AT);
        // The line is shared with the other processor: it is written only when it changes.
        if sleeping.load(Ordering::Relaxed) != 0 {
            sleeping.store(0, Ordering::Relaxed);
        }
    }

    /// Whether there is anything to read.
    pub(crate) fn has_data(&self) -> bool {
        self.held() != 0
    }

    fn held(&self) -> u64 {
        self.word(HEAD_AT)
            .load(Ordering::Acquire)
            .wrapping_sub(self.tail)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(
            at.is_multiple_of(8) && at < HEADER,
            "words lie in the header"
        );
        // SAFETY: aligned, inside of the mapping, valid as long as `self`, and only ever used as an atomic on this side.
        unsafe { &*self.map.as_ptr().add(at).cast::<AtomicU64>() }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `create` with this length, and all references into it borrow `self`.
        unsafe {
            let _ = rustix::mm::munmap(self.map.as_ptr().cast(), HEADER + self.capacity);
        }
    }
}
