//! The admin protocol: both servers' commands, with their exact answers (origin.md 1.5). The text
//! is made here, so that a listing of many thousand lines is written once.

use super::job::JobState;
use super::machine::Broker;
use super::rest::bad_function_name;
use super::settings::{Cancel, LineEnd, ShutdownBy};
use super::vocabulary::{
    AclVerb, AdminCommand, AdminEffect, ConnId, Message, Outbox, PeerKind, Precedence,
};
use std::io::Write;

type Answer = Result<(), &'static str>;

const DENIED: &str = "ERR PERMISSION_DENIED";

impl Broker {
    /// A line of the admin protocol from `from`; exactly one answer is sent.
    pub fn admin(
        &mut self,
        from: ConnId,
        command: AdminCommand<'_>,
        out: &mut impl Outbox,
    ) -> AdminEffect {
        self.answer_open_grab(from, out);
        let mut text = Vec::new();
        let mut effect = AdminEffect::None;
        match command {
            AdminCommand::Status => self.list_status(&mut text),
            AdminCommand::PriorityStatus => self.list_priority_status(&mut text),
            AdminCommand::Workers => self.list_workers(&mut text),
            AdminCommand::ShowJobs => self.list_jobs(&mut text),
            AdminCommand::ShowUniqueJobs => self.list_unique_jobs(&mut text),
            AdminCommand::AclList => self.list_acl(&mut text),
            AdminCommand::GetPid => line(&mut text, format_args!("OK {}", self.settings.pid)),
            AdminCommand::Verbose => {
                line(&mut text, format_args!("OK {}", self.settings.verbosity))
            }
            AdminCommand::Version => line(&mut text, format_args!("OK {}", self.settings.version)),
            AdminCommand::CancelJob(handle) => {
                let answer = self.cancel(from, handle, out);
                self.ok_or(&mut text, answer);
            }
            AdminCommand::CreateFunction(name) => {
                let answer = self.create_function(from, name);
                self.ok_or(&mut text, answer);
            }
            AdminCommand::DropFunction(name) => {
                let answer = self.drop_function(from, name, out);
                self.ok_or(&mut text, answer);
            }
            AdminCommand::MaxQueue { function, limits } => {
                let answer = self.max_queue(from, function, limits);
                self.ok_or(&mut text, answer);
            }
            AdminCommand::Shutdown { graceful } => {
                let answer = self.may_shut_down(from).then_some(()).ok_or(DENIED);
                if answer.is_ok() {
                    effect = AdminEffect::Shutdown { graceful };
                }
                self.ok_or(&mut text, answer);
            }
            AdminCommand::AclGrant { verb, subject, pattern } => {
                self.acl_grant(from, verb, subject, pattern, &mut text);
            }
            AdminCommand::AclRevoke { verb, subject } => {
                self.acl_revoke(from, verb, Some(subject), &mut text);
            }
            AdminCommand::AclSelfRevoke { verb } => self.acl_revoke(from, verb, None, &mut text),
            AdminCommand::Wrong(answer) => self.end_line(&mut text, &answer),
        }
        out.send(from, Message::Text(&text));
        effect
    }

    fn end_line(&self, text: &mut Vec<u8>, answer: &str) {
        text.extend_from_slice(answer.as_bytes());
        text.extend_from_slice(match self.settings.line_end {
            LineEnd::Lf => b"\n",
            LineEnd::CrLf => b"\r\n",
        });
    }

    fn ok_or(&self, text: &mut Vec<u8>, answer: Answer) {
        self.end_line(text, answer.err().unwrap_or("OK"));
    }

    fn list_status(&self, text: &mut Vec<u8>) {
        for f in self.functions.sorted() {
            text.extend_from_slice(&f.name);
            line(text, format_args!("\t{}\t{}\t{}", f.total(), f.running, f.workers));
        }
        end_of_list(text);
    }

    fn list_priority_status(&self, text: &mut Vec<u8>) {
        for f in self.functions.sorted() {
            text.extend_from_slice(&f.name);
            let [high, normal, low] = Precedence::ORDER.map(|p| f.queued_at(p));
            // Only normal jobs can be scheduled; gearmand counts them as queued.
            let normal = normal + f.scheduled as usize;
            line(text, format_args!("\t{high}\t{normal}\t{low}\t{}", f.workers));
        }
        end_of_list(text);
    }

    fn list_workers(&self, text: &mut Vec<u8>) {
        for (_, conn) in self.conns.iter() {
            match conn.peer.kind {
                PeerKind::InProcess => continue,
                PeerKind::Local | PeerKind::Remote => {}
            }
            append(text, format_args!("{} {} ", conn.peer.descriptor, conn.peer.address));
            text.extend_from_slice(conn.client_id.as_deref().unwrap_or(b"-"));
            text.extend_from_slice(b" :");
            let mut abilities: Vec<_> = conn.abilities.iter().collect();
            abilities.sort_unstable_by_key(|(_, ability)| ability.registered);
            for (function, _) in abilities {
                text.push(b' ');
                text.extend_from_slice(&self.functions[*function].name);
            }
            text.push(b'\n');
        }
        end_of_list(text);
    }

    /// `HANDLE RETRIES IGNORE_JOB JOB_QUEUED`, oldest job first.
    fn list_jobs(&self, text: &mut Vec<u8>) {
        let mut jobs: Vec<_> = self.jobs.iter().collect();
        jobs.sort_unstable_by_key(|(number, _)| *number);
        for (_, job) in jobs {
            text.extend_from_slice(job.handle.as_bytes());
            let queued = match job.state {
                JobState::Queued { .. } | JobState::Scheduled { .. } | JobState::Taken { .. } => 1,
                JobState::Running { .. } => 0,
            };
            let ignored = u8::from(!job.background && job.clients.is_empty());
            line(text, format_args!("\t{}\t{ignored}\t{queued}", job.losses));
        }
        end_of_list(text);
    }

    fn list_unique_jobs(&self, text: &mut Vec<u8>) {
        let mut jobs: Vec<_> = self.jobs.iter().filter(|(_, j)| !j.unique.is_empty()).collect();
        jobs.sort_unstable_by_key(|(number, _)| *number);
        for (_, job) in jobs {
            // A line a job, whatever the client chose.
            text.extend(job.unique.iter().map(|b| if b.is_ascii_control() { b'?' } else { *b }));
            text.push(b'\n');
        }
        end_of_list(text);
    }

    fn cancel(&mut self, from: ConnId, handle: &[u8], out: &mut impl Outbox) -> Answer {
        const UNKNOWN: &str = "ERR UNKNOWN_JOB";
        let number = self.jobs.find(handle).ok_or(UNKNOWN)?;
        let job = self.jobs.get(number).ok_or(UNKNOWN)?;
        let name = &self.functions[job.function].name;
        if !self.may(from, |acl, subject| acl.may_invoke(subject, name)) {
            return Err(DENIED);
        }
        match self.settings.cancel {
            Cancel::QueuedSilently if job.is_running() => return Err(UNKNOWN),
            Cancel::QueuedSilently => {
                if let Some(job) = self.remove_job(number)
                    && let Some(worker) = job.worker()
                {
                    out.send(worker, Message::JobAbandoned { handle });
                }
            }
            Cancel::AnyWithFail => self.fail_job(number, out),
        }
        Ok(())
    }

    fn create_function(&mut self, from: ConnId, name: &[u8]) -> Answer {
        if !self.may(from, super::Acl::may_grant) {
            return Err(DENIED);
        }
        if bad_function_name(name).is_some() {
            return Err("ERR INVALID_FUNCTION_NAME");
        }
        let added = self.functions.get_or_add(name, self.settings.limits.functions);
        added.map(|_| ()).ok_or("ERR QUEUE_FULL The+server+knows+too+many+functions")
    }

    fn drop_function(&mut self, from: ConnId, name: &[u8], out: &mut impl Outbox) -> Answer {
        if !self.may(from, super::Acl::may_grant) {
            return Err(DENIED);
        }
        let id = self.functions.find(name).ok_or("ERR function not found")?;
        let function = &self.functions[id];
        if function.workers > 0 || function.taken + function.running > 0 {
            return Err("ERR there are still connected workers or executing clients");
        }
        // Clients that wait for a job of this function hear that it will never run.
        let mut jobs = function.queued_jobs();
        if function.scheduled > 0 {
            jobs.extend(self.jobs.iter().filter(|(_, j)| j.function == id).map(|(n, _)| n));
        }
        for number in jobs {
            self.fail_job(number, out);
        }
        self.functions.remove(id);
        Ok(())
    }

    fn max_queue(&mut self, from: ConnId, name: &[u8], limits: [Option<u32>; 3]) -> Answer {
        if !self.may(from, super::Acl::may_grant) {
            return Err(DENIED);
        }
        // An unknown function is no error, as in gearmand.
        if let Some(function) = self.functions.find(name) {
            self.functions[function].max_queue = limits;
        }
        Ok(())
    }

    fn may_shut_down(&self, from: ConnId) -> bool {
        if self.acl.is_some() {
            return self.may(from, super::Acl::may_grant);
        }
        let local = self.conns.get(from).is_some_and(|c| match c.peer.kind {
            PeerKind::Local | PeerKind::InProcess => true,
            PeerKind::Remote => false,
        });
        match self.settings.shutdown_by {
            ShutdownBy::Nobody => false,
            ShutdownBy::Local => local,
            ShutdownBy::Anyone => true,
        }
    }

    fn list_acl(&self, text: &mut Vec<u8>) {
        let Some(acl) = &self.acl else { return self.end_line(text, "ERR ACL_DISABLED") };
        for (subject, entry) in acl.entries() {
            let pattern = |p: &Option<super::Pattern>| {
                p.as_ref().map_or_else(|| "None".to_owned(), |p| p.text().to_owned())
            };
            let grant = match entry.grant {
                None => "None",
                Some(true) => "True",
                Some(false) => "False",
            };
            let (register, invoke) = (pattern(&entry.register), pattern(&entry.invoke));
            line(
                text,
                format_args!("{subject}\tregister={register}\tinvoke={invoke}\tgrant={grant}"),
            );
        }
        end_of_list(text);
    }

    fn acl_grant(
        &mut self,
        from: ConnId,
        verb: AclVerb,
        subject: &str,
        pattern: &str,
        text: &mut Vec<u8>,
    ) {
        let may = self.may(from, super::Acl::may_grant);
        let Some(acl) = &mut self.acl else { return self.end_line(text, "ERR ACL_DISABLED") };
        if !may {
            return self.end_line(text, DENIED);
        }
        let done = match verb {
            AclVerb::Register => acl.grant_register(subject, pattern),
            AclVerb::Invoke => acl.grant_invoke(subject, pattern),
            AclVerb::Grant => acl.grant_grant(subject),
            AclVerb::All => return self.end_line(text, "ERR UNKNOWN_ACL_VERB"),
        };
        match done {
            Ok(()) => self.end_line(text, "OK"),
            Err(error) => self.end_line(text, &format!("ERR UNABLE {error}")),
        }
    }

    /// Of `subject`, or of the asker itself, which needs no right.
    fn acl_revoke(
        &mut self,
        from: ConnId,
        verb: AclVerb,
        subject: Option<&str>,
        text: &mut Vec<u8>,
    ) {
        let own = self.conns.get(from).and_then(|c| c.peer.subject.clone());
        let may =
            subject.is_none() || subject == own.as_deref() || self.may(from, super::Acl::may_grant);
        let Some(acl) = &mut self.acl else { return self.end_line(text, "ERR ACL_DISABLED") };
        if !may {
            return self.end_line(text, DENIED);
        }
        if let Some(subject) = subject.or(own.as_deref()) {
            acl.revoke(subject, verb);
        }
        self.end_line(text, "OK");
    }
}

/// Add a line that ends with a line feed in every dialect.
fn line(text: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    append(text, arguments);
    text.push(b'\n');
}

fn append(text: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    let written = text.write_fmt(arguments);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
}

fn end_of_list(text: &mut Vec<u8>) {
    text.extend_from_slice(b".\n");
}
