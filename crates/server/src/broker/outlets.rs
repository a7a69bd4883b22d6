//! The table of connections and what waits to be sent to each. It is the broker's outbox.

use super::face::{FaceJob, SubmitError, Submitted, TASK_EVENTS_MAX, TaskEvent};
use super::transport::Transport;
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use toci_core::broker::{Assignment, ConnId, Message, Outbox, WorkKind};
use toci_wire::gearman::encode_message;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Empty buffers kept for the next output.
const SPARE_BUFFERS_MAX: usize = 256;
/// Largest buffer that is kept, in bytes.
const SPARE_BUFFER_MAX_BYTES: usize = 64 * 1024;

/// Bytes on their way out.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Write as much as the transport takes; `WouldBlock` means that some is left.
    pub(super) fn flush(&mut self, transport: &mut Transport) -> std::io::Result<()> {
        while !self.is_empty() {
            match transport.write(&self.bytes[self.written..])? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => self.written += written,
            }
        }
        transport.flush()
    }

    /// Forget what has been written when that is the larger part, so that a buffer that never
    /// empties does not grow for ever.
    fn compact(&mut self) {
        if self.written > SPARE_BUFFER_MAX_BYTES && self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

/// A connection through a socket.
pub(super) struct SocketConn {
    pub(super) id: ConnId,
    pub(super) transport: Transport,
    /// The start of a frame that has not arrived whole.
    pub(super) input: Vec<u8>,
    pub(super) output: Output,
    /// Its input begins with whole frames, for which its turn was too short.
    pub(super) in_arrears: bool,
    /// It is in the list of those to flush.
    dirty: bool,
    /// It reads too slowly: nothing more is said to it, and it is cut.
    doomed: bool,
}

/// What a face waits for at this moment.
pub(super) enum Pending {
    Nothing,
    Grab(oneshot::Sender<Option<FaceJob>>),
    Submit(oneshot::Sender<Submitted>),
}

struct Task {
    events: mpsc::Sender<TaskEvent>,
    /// Kept free for the end of the job.
    end: mpsc::OwnedPermit<TaskEvent>,
}

/// A pseudo-connection from within the process.
pub(super) struct FaceConn {
    pub(super) id: ConnId,
    pub(super) name: String,
    pub(super) queued: Arc<Notify>,
    pub(super) dropped: Arc<AtomicBool>,
    pub(super) pending: Pending,
    tasks: HashMap<Vec<u8>, Task>,
    jobs: HashMap<Vec<u8>, watch::Sender<bool>>,
    /// Jobs whose grab was given up at the moment they came: the next grab gets them.
    kept: VecDeque<FaceJob>,
}

enum Slot {
    Socket(Box<SocketConn>),
    Face(Box<FaceConn>),
}

/// All connections by the index of their id.
pub(super) struct Outlets {
    slots: Vec<Option<Slot>>,
    /// Those with output that has not been tried yet.
    pub(super) dirty: Vec<ConnId>,
    /// Those to cut for reading too slowly.
    pub(super) doomed: Vec<ConnId>,
    faces: Vec<ConnId>,
    spare: Vec<Vec<u8>>,
    output_max_bytes: usize,
    /// Bytes that wait for all readers.
    output_bytes: usize,
    output_total_max_bytes: usize,
}

impl Outlets {
    pub(super) fn new(output_max_bytes: usize, output_total_max_bytes: usize) -> Outlets {
        Outlets {
            slots: Vec::new(),
            dirty: Vec::new(),
            doomed: Vec::new(),
            faces: Vec::new(),
            spare: Vec::new(),
            output_max_bytes,
            output_bytes: 0,
            output_total_max_bytes,
        }
    }

    fn put(&mut self, id: ConnId, slot: Slot) {
        if self.slots.len() <= id.index() {
            self.slots.resize_with(id.index() + 1, || None);
        }
        self.slots[id.index()] = Some(slot);
    }

    pub(super) fn add_socket(&mut self, id: ConnId, transport: Transport) {
        let conn = SocketConn {
            id,
            transport,
            input: Vec::new(),
            output: Output::default(),
            in_arrears: false,
            dirty: false,
            doomed: false,
        };
        self.put(id, Slot::Socket(Box::new(conn)));
    }

    pub(super) fn add_face(
        &mut self,
        id: ConnId,
        name: String,
        queued: Arc<Notify>,
        dropped: Arc<AtomicBool>,
    ) {
        let (tasks, jobs) = (HashMap::new(), HashMap::new());
        let (pending, kept) = (Pending::Nothing, VecDeque::new());
        let face = FaceConn { id, name, queued, dropped, pending, tasks, jobs, kept };
        self.put(id, Slot::Face(Box::new(face)));
        self.faces.push(id);
    }

    /// The socket at an index, whoever has it now.
    pub(super) fn id_at(&self, index: usize) -> Option<ConnId> {
        match self.slots.get(index)? {
            Some(Slot::Socket(conn)) => Some(conn.id),
            Some(Slot::Face(_)) | None => None,
        }
    }

    pub(super) fn socket(&mut self, id: ConnId) -> Option<&mut SocketConn> {
        match self.slots.get_mut(id.index())? {
            Some(Slot::Socket(conn)) if conn.id == id => Some(conn),
            Some(Slot::Socket(_) | Slot::Face(_)) | None => None,
        }
    }

    pub(super) fn is_doomed(&mut self, id: ConnId) -> bool {
        self.socket(id).is_some_and(|c| c.doomed)
    }

    pub(super) fn face(&mut self, id: ConnId) -> Option<&mut FaceConn> {
        match self.slots.get_mut(id.index())? {
            Some(Slot::Face(face)) if face.id == id => Some(face),
            Some(Slot::Socket(_) | Slot::Face(_)) | None => None,
        }
    }

    /// Faces whose owner has dropped them.
    pub(super) fn dropped_faces(&mut self) -> Vec<ConnId> {
        let all = self.faces.clone();
        let gone = |id: &ConnId| {
            self.face(*id).is_some_and(|f| f.dropped.load(std::sync::atomic::Ordering::Acquire))
        };
        all.into_iter().filter(gone).collect()
    }

    pub(super) fn remove_socket(&mut self, id: ConnId) -> Option<Box<SocketConn>> {
        self.socket(id)?;
        match self.slots[id.index()].take() {
            Some(Slot::Socket(conn)) => {
                self.output_bytes -= conn.output.len();
                Some(conn)
            }
            Some(Slot::Face(_)) | None => None,
        }
    }

    pub(super) fn remove_face(&mut self, id: ConnId) -> Option<Box<FaceConn>> {
        self.face(id)?;
        self.faces.retain(|f| *f != id);
        match self.slots[id.index()].take() {
            Some(Slot::Face(face)) => Some(face),
            Some(Slot::Socket(_)) | None => None,
        }
    }

    /// Send what waits for `id`. An error other than `WouldBlock` means that it is lost.
    pub(super) fn flush(&mut self, id: ConnId) -> std::io::Result<()> {
        let Some(conn) = self.socket(id) else { return Ok(()) };
        conn.dirty = false;
        let before = conn.output.len();
        let done = conn.output.flush(&mut conn.transport);
        let written = before - conn.output.len();
        if conn.output.is_empty() {
            let mut buffer = std::mem::take(&mut conn.output).bytes;
            let small = buffer.capacity() <= SPARE_BUFFER_MAX_BYTES;
            if small && self.spare.len() < SPARE_BUFFERS_MAX {
                buffer.clear();
                self.spare.push(buffer);
            }
        } else {
            conn.output.compact();
        }
        self.output_bytes -= written;
        done
    }

    /// Say nothing more to `id`, and forget what it has not read.
    fn doom(&mut self, id: ConnId) {
        let Some(conn) = self.socket(id) else { return };
        conn.doomed = true;
        let unread = std::mem::take(&mut conn.output).len();
        self.output_bytes -= unread;
        self.doomed.push(id);
    }

    fn largest(&self, bytes: impl Fn(&SocketConn) -> usize) -> Option<ConnId> {
        let sockets = self.slots.iter().filter_map(|slot| match slot {
            Some(Slot::Socket(conn)) => Some(conn),
            Some(Slot::Face(_)) | None => None,
        });
        sockets.map(|c| (bytes(c), c.id)).filter(|(bytes, _)| *bytes > 0).max().map(|(_, id)| id)
    }

    /// The connection with the most bytes of half received packets.
    pub(super) fn largest_input(&self) -> Option<ConnId> {
        self.largest(|conn| conn.input.len())
    }

    fn send_socket(&mut self, to: ConnId, message: &Message<'_>) {
        let Some(Some(Slot::Socket(conn))) = self.slots.get_mut(to.index()) else { return };
        if conn.id != to || conn.doomed {
            return;
        }
        if conn.output.len() > self.output_max_bytes {
            return self.doom(to);
        }
        if conn.output.bytes.capacity() == 0
            && let Some(buffer) = self.spare.pop()
        {
            conn.output.bytes = buffer;
        }
        let before = conn.output.bytes.len();
        if let Err(error) = encode_message(&mut conn.output.bytes, message) {
            tracing::error!(%error, "a Gearman message was not sent");
        }
        self.output_bytes += conn.output.bytes.len() - before;
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(to);
        }
        while self.output_bytes > self.output_total_max_bytes {
            let Some(largest) = self.largest(|conn| conn.output.len()) else { return };
            self.doom(largest);
        }
    }
}

impl Outbox for Outlets {
    fn send(&mut self, to: ConnId, message: Message<'_>) {
        match self.face(to) {
            Some(face) => face.hear(message),
            None => self.send_socket(to, &message),
        }
    }
}

impl FaceConn {
    fn hear(&mut self, message: Message<'_>) {
        match message {
            Message::Noop => self.queued.notify_one(),
            Message::NoJob => self.answer_grab(None),
            Message::JobAssign(assignment) => self.assigned(assignment),
            Message::JobCreated { handle } => self.created(handle),
            Message::WorkStatus { handle, numerator, denominator } => {
                let event = TaskEvent::Status(numerator.to_vec(), denominator.to_vec());
                self.event(handle, event);
            }
            Message::Work { kind, handle, data } => {
                let event = match kind {
                    WorkKind::Data => TaskEvent::Data(data.to_vec()),
                    WorkKind::Warning => TaskEvent::Warning(data.to_vec()),
                    WorkKind::Complete => TaskEvent::Complete(data.to_vec()),
                    WorkKind::Exception => TaskEvent::Exception(data.to_vec()),
                    WorkKind::Fail => TaskEvent::Fail,
                };
                self.event(handle, event);
            }
            Message::Error { code, text } => self.refused(code, text),
            Message::JobAbandoned { handle } => {
                if let Some(abandoned) = self.jobs.remove(handle) {
                    abandoned.send_replace(true);
                }
            }
            // A face does not ask for these.
            Message::Status(_)
            | Message::Echo { .. }
            | Message::Option { .. }
            | Message::Text(_) => {}
        }
    }

    /// An ended job needs no notice any more.
    pub(super) fn forget_job(&mut self, handle: &[u8]) {
        self.jobs.remove(handle);
    }

    /// Answer a grab with a job that is here already, or give the reply back. A job that was
    /// abandoned in the meantime is still handed out, so that its owner ends it.
    pub(super) fn answer_from_kept(
        &mut self,
        reply: oneshot::Sender<Option<FaceJob>>,
    ) -> Option<oneshot::Sender<Option<FaceJob>>> {
        if reply.is_closed() {
            return None;
        }
        let Some(job) = self.kept.pop_front() else { return Some(reply) };
        if let Err(Some(job)) = reply.send(Some(job)) {
            self.kept.push_front(job);
        }
        None
    }

    fn answer_grab(&mut self, job: Option<FaceJob>) {
        if let Pending::Grab(reply) = std::mem::replace(&mut self.pending, Pending::Nothing)
            && let Err(Some(job)) = reply.send(job)
        {
            self.kept.push_back(job);
            self.queued.notify_one();
        }
    }

    fn assigned(&mut self, assignment: Assignment<'_>) {
        let (notice, abandoned) = watch::channel(false);
        self.jobs.insert(assignment.handle.to_vec(), notice);
        self.answer_grab(Some(FaceJob {
            handle: assignment.handle.to_vec(),
            function: assignment.function.to_vec(),
            unique: assignment.unique.to_vec(),
            payload: assignment.payload.to_vec(),
            abandoned,
        }));
    }

    fn created(&mut self, handle: &[u8]) {
        let Pending::Submit(reply) = std::mem::replace(&mut self.pending, Pending::Nothing) else {
            return;
        };
        // One more place than events may use, for the end.
        let (events, receiver) = mpsc::channel(TASK_EVENTS_MAX + 1);
        if let Ok(end) = events.clone().try_reserve_owned() {
            self.tasks.insert(handle.to_vec(), Task { events, end });
        }
        if reply.send(Ok((handle.to_vec(), receiver))).is_err() {
            tracing::debug!(face = self.name, "nobody follows the job that was submitted");
        }
    }

    fn refused(&mut self, code: &str, text: &str) {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Submit(reply) => {
                let (code, text) = (code.to_owned(), text.to_owned());
                // The asker may have gone.
                let _ = reply.send(Err(SubmitError::Refused { code, text }));
            }
            Pending::Grab(_) | Pending::Nothing => {
                tracing::warn!(face = self.name, code, text, "the Gearman broker refused");
            }
        }
    }

    fn event(&mut self, handle: &[u8], event: TaskEvent) {
        if event.is_end() {
            if let Some(task) = self.tasks.remove(handle) {
                task.end.send(event);
            }
        } else if let Some(task) = self.tasks.get(handle)
            && task.events.try_send(event).is_err()
        {
            tracing::debug!(face = self.name, "an event of a job was dropped: nobody reads");
        }
    }
}
