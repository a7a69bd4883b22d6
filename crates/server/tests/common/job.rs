//! Jobs that do nothing, for tests to change.

use std::time::Duration;
use toci_core::layout::{Job, JobName, JobRun};

/// What of a job concerns its runs.
pub(crate) fn plain() -> JobRun {
    JobRun {
        pre: vec![],
        run: vec![],
        post: vec![],
        node: None,
        nodes: 1,
        testenv: None,
        timeout: Duration::from_secs(50),
        post_timeout: Duration::from_secs(20),
        wait_timeout: None,
        attempts: 3,
        artifacts: vec![],
        env: vec![],
        secrets: vec![],
        projects: vec![],
        override_branch: None,
        project_branches: vec![],
    }
}

/// A job of this name.
pub(crate) fn job(name: &str, run: JobRun) -> Job {
    Job {
        name: JobName(name.to_owned()),
        voting: true,
        hold_following: false,
        queue_name: None,
        success_message: None,
        failure_message: None,
        success_pattern: None,
        failure_pattern: None,
        branches: vec![],
        files: vec![],
        skip_if: vec![],
        semaphore: None,
        pause_after_failures: None,
        tags: vec![],
        dependencies: vec![],
        parameters: vec![],
        run,
    }
}
