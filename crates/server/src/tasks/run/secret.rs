//! Secrets: values from files of the operator's, only for jobs of projects that may have them.

use crate::config::SecretConfig;
use std::io::Read as _;
use toci_core::pipeline::RunWish;
use toci_core::run::trust::distrust;
use toci_core::run::variables::project;

/// Largest secret, in bytes.
pub(super) const SECRET_MAX_BYTES: u64 = 64 << 10;

/// A job's secrets: variable and value.
#[derive(Clone, Default)]
pub(super) struct Secrets(pub(super) Vec<(String, String)>);

impl core::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// Reads what the job wants. A secret that it may not have, and one that does not exist, are told alike, so that nobody
/// learns which there are.
pub(super) fn read(known: &[SecretConfig], wish: &RunWish, base: &str) -> Result<Secrets, String> {
    if !wish.job.run.secrets.is_empty()
        && let Some(why) = distrust(wish, base)
    {
        return Err(why);
    }
    let project = project(wish).map(|p| p.to_string()).unwrap_or_default();
    let mut out = Secrets::default();
    for (name, variable) in &wish.job.run.secrets {
        let may = |s: &&SecretConfig| {
            s.name == *name && s.projects.iter().any(|pattern| pattern.matches(&project))
        };
        let Some(secret) = known.iter().find(may) else {
            return Err(format!(
                "job {} of {project} may not have a secret `{name}`: [[secret]] projects in toci.toml says who may",
                wish.job.name
            ));
        };
        let mut value = String::new();
        let read = std::fs::File::open(&secret.file)
            .and_then(|file| file.take(SECRET_MAX_BYTES + 1).read_to_string(&mut value));
        if let Err(error) = read {
            // The path is the operator's business.
            tracing::error!(secret = name, file = %secret.file.display(), %error, "a secret cannot be read");
            return Err(format!("the secret `{name}` cannot be read; the server's log says why"));
        }
        if value.len() as u64 > SECRET_MAX_BYTES {
            return Err(format!("the secret `{name}` has more than {SECRET_MAX_BYTES} bytes"));
        }
        let value = value.strip_suffix('\n').unwrap_or(&value).to_owned();
        out.0.push((variable.clone(), value));
    }
    Ok(out)
}
