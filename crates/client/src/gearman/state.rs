//! What one connection waits for, and what each message of the broker means to it. Plain values
//! behind a lock that is never held across an `.await`.

use super::task::{TASK_EVENTS_MAX, TaskEvent};
use super::worker::Assigned;
use std::collections::{BTreeMap, HashMap, VecDeque};
use toci_core::broker::{Assignment, Message, Request, StatusAnswer, WorkKind};
use toci_wire::gearman::encode_request;
use tokio::sync::{mpsc, oneshot, watch};

/// A job's handle and where its events come from, or the broker's refusal.
pub(super) type Created = Result<(Vec<u8>, mpsc::Receiver<TaskEvent>), (String, String)>;

/// How a job stands at the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// Whether the broker knows the job.
    pub known: bool,
    /// Whether a worker has it.
    pub running: bool,
    /// Progress as the worker wrote it.
    pub numerator: Vec<u8>,
    /// Of how much.
    pub denominator: Vec<u8>,
}

struct Task {
    events: mpsc::Sender<TaskEvent>,
    /// Kept free for the end of the job.
    end: mpsc::OwnedPermit<TaskEvent>,
}

/// What one connection knows.
#[derive(Default)]
pub(super) struct LinkState {
    /// Whether the connection stands, and how often it has been made.
    pub(super) up: bool,
    pub(super) connections: u64,
    /// Functions to register, now and after each reconnection, with milliseconds.
    pub(super) functions: BTreeMap<Vec<u8>, u64>,
    /// Submissions without answer, oldest first: brokers answer in order.
    pub(super) creating: VecDeque<oneshot::Sender<Created>>,
    /// Status requests without answer, by handle.
    asking: HashMap<Vec<u8>, Vec<oneshot::Sender<JobStatus>>>,
    tasks: HashMap<Vec<u8>, Task>,
    /// The answer to a grab goes here; `None` for no job.
    pub(super) grabbing: Option<oneshot::Sender<()>>,
    /// Jobs that came and have not been taken: their grab was cancelled.
    pub(super) assigned: VecDeque<Assigned>,
    running: HashMap<Vec<u8>, watch::Sender<bool>>,
}

impl LinkState {
    /// What to say first on a new connection.
    pub(super) fn greeting(&mut self, client_id: &str) -> Vec<u8> {
        self.up = true;
        self.connections += 1;
        let mut bytes = Vec::new();
        if !client_id.is_empty() {
            append(&mut bytes, &Request::SetClientId { id: client_id.as_bytes() });
        }
        // A server that does not know the option answers with an error or not at all; both are
        // ignored, as nothing is being created yet.
        append(&mut bytes, &Request::Option { name: b"exceptions" });
        for (function, timeout_ms) in &self.functions {
            append(&mut bytes, &Request::CanDo { function, timeout_ms: *timeout_ms });
        }
        bytes
    }

    /// The connection is lost: everybody who waits hears of it.
    pub(super) fn lost(&mut self) {
        self.up = false;
        self.creating.clear();
        self.asking.clear();
        self.grabbing = None;
        self.assigned.clear();
        for (_, task) in self.tasks.drain() {
            task.end.send(TaskEvent::Lost);
        }
        for (_, lost) in self.running.drain() {
            lost.send_replace(true);
        }
    }

    pub(super) fn ask_status(&mut self, handle: &[u8], reply: oneshot::Sender<JobStatus>) {
        self.asking.entry(handle.to_vec()).or_default().push(reply);
    }

    /// A running job has been ended by us.
    pub(super) fn ended(&mut self, handle: &[u8]) {
        self.running.remove(handle);
    }

    /// What the broker said; `true` when a sleeping worker should look for a job.
    pub(super) fn hear(&mut self, message: Message<'_>) -> bool {
        match message {
            Message::Noop => return true,
            Message::NoJob => self.grabbed(),
            Message::JobAssign(assignment) => self.assign(assignment),
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
            Message::Status(status) => self.status(status),
            Message::Error { code, text } => self.refused(code, text),
            Message::Echo { .. }
            | Message::Option { .. }
            | Message::Text(_)
            | Message::JobAbandoned { .. } => {}
        }
        false
    }

    fn grabbed(&mut self) {
        if let Some(reply) = self.grabbing.take() {
            // Whoever asked may have given up.
            let _ = reply.send(());
        }
    }

    fn assign(&mut self, assignment: Assignment<'_>) {
        let (sender, lost) = watch::channel(false);
        let handle = assignment.handle.to_vec();
        self.running.insert(handle.clone(), sender);
        self.assigned.push_back(Assigned {
            handle,
            function: assignment.function.to_vec(),
            unique: assignment.unique.to_vec(),
            payload: assignment.payload.to_vec(),
            lost,
        });
        self.grabbed();
    }

    fn created(&mut self, handle: &[u8]) {
        let Some(reply) = self.creating.pop_front() else { return };
        // One more place than events may use, for the end.
        let (events, receiver) = mpsc::channel(TASK_EVENTS_MAX + 1);
        if let Ok(end) = events.clone().try_reserve_owned() {
            self.tasks.insert(handle.to_vec(), Task { events, end });
        }
        // Whoever submitted may have given up; the job runs all the same.
        let _ = reply.send(Ok((handle.to_vec(), receiver)));
    }

    fn refused(&mut self, code: &str, text: &str) {
        match self.creating.pop_front() {
            Some(reply) => drop(reply.send(Err((code.to_owned(), text.to_owned())))),
            None => tracing::debug!(code, text, "the Gearman broker complained"),
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
            tracing::debug!("an event of a Gearman job was dropped: nobody reads");
        }
    }

    fn status(&mut self, status: StatusAnswer<'_>) {
        for reply in self.asking.remove(status.name).unwrap_or_default() {
            // Whoever asked may have given up.
            let _ = reply.send(JobStatus {
                known: status.known,
                running: status.running,
                numerator: status.numerator.to_vec(),
                denominator: status.denominator.to_vec(),
            });
        }
    }
}

/// Append a request; one too large for the protocol is left out and logged.
pub(super) fn append(bytes: &mut Vec<u8>, request: &Request<'_>) {
    if let Err(error) = encode_request(bytes, request) {
        tracing::error!(%error, "a Gearman request was not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answers_the_oldest_submission_and_loss_ends_everything() {
        let mut state = LinkState::default();
        let (first, mut first_answer) = oneshot::channel();
        let (second, mut second_answer) = oneshot::channel();
        state.creating.extend([first, second]);
        state.hear(Message::Error { code: "QUEUE_FULL", text: "full" });
        state.hear(Message::JobCreated { handle: b"H:1" });
        assert_eq!(first_answer.try_recv().unwrap().unwrap_err().0, "QUEUE_FULL");
        let (handle, mut events) = second_answer.try_recv().unwrap().unwrap();
        assert_eq!(handle, b"H:1");
        for _ in 0..TASK_EVENTS_MAX + 10 {
            state.hear(Message::Work { kind: WorkKind::Data, handle: b"H:1", data: b"x" });
        }
        state.lost();
        let mut last = None;
        while let Ok(event) = events.try_recv() {
            last = Some(event);
        }
        assert_eq!(last, Some(TaskEvent::Lost), "the end comes however full the channel is");
    }
}
