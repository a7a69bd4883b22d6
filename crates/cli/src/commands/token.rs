//! `toci token`.

use super::secret_file::SecretFile;
use crate::args::TokenCommand;
use crate::error::Result;
use crate::exit::Exit;
use crate::output;
use std::process::ExitCode;
use toci_client::api::ApiClient;
use toci_wire::api::{TokenInfo, TokenRequest};

pub(super) async fn dispatch(
    client: &ApiClient,
    json: bool,
    command: TokenCommand,
) -> Result<ExitCode> {
    match command {
        TokenCommand::Create { role, subject, ttl, output: path } => {
            let file = SecretFile::open(path.as_deref())?;
            let request = TokenRequest { role, subject, ttl_s: ttl.map(|d| d.as_secs()) };
            let made = match client.create_token(&request).await {
                Ok(made) => made,
                Err(e) => {
                    file.abandon();
                    return Err(e.into());
                }
            };
            if json && path.is_none() {
                output::json(&made)?;
            } else {
                let story = format!("token {} ({role} for {})", made.id, made.subject);
                file.write(&made.token, &story)?;
            }
        }
        TokenCommand::List => {
            let tokens = client.tokens().await?;
            if json { output::json(&tokens)? } else { output::text_line(&table(&tokens))? }
        }
        TokenCommand::Revoke { id } => {
            client.delete_token(&id).await?;
            if !json {
                output::text_line(&format!("token {id} is worthless now"))?;
            }
        }
    }
    Ok(Exit::Ok.into())
}

fn table(tokens: &[TokenInfo]) -> String {
    let rows: Vec<_> = tokens
        .iter()
        .map(|t| {
            vec![
                t.id.clone(),
                t.role.to_string(),
                t.subject.clone(),
                output::ago(t.created_us),
                t.expires_us.map_or_else(|| "never".to_owned(), output::moment),
            ]
        })
        .collect();
    output::table(&["TOKEN", "ROLE", "SUBJECT", "MADE", "EXPIRES"], &rows)
}
