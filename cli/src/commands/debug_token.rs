//! `verge debug-token`: makes a token whose holder gets explanations in responses. The site file holds
//! its hash only; nothing is sent anywhere.

use crate::Ended;
use crate::error::CliError;
use crate::output::Output;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// What is shown, once.
#[derive(Serialize)]
struct DebugToken {
    token: String,
    hash: String,
}

pub(crate) fn run(output: Output) -> Result<Ended, CliError> {
    let made = made(&rand::random::<[u8; TOKEN_BYTES]>());
    output.result(&made, shown);
    Ok(Ended::Done)
}

fn made(random: &[u8]) -> DebugToken {
    let token = format!("vdbg_{}", hex::encode(random));
    let hash = format!("sha256:{}", hex::encode(Sha256::digest(&token)));
    DebugToken { token, hash }
}

fn shown(made: &DebugToken) -> String {
    let DebugToken { token, hash } = made;
    format!(
        "The token, shown once; send it as \"Verge-Debug: {token}\":\n  {token}\n\
         In the site file, at its top:\n  debug_tokens = [\"{hash}\"]"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_file_takes_the_line_and_holds_no_token() {
        let made = made(&[7; TOKEN_BYTES]);
        let text = shown(&made);
        let line = text.lines().last().unwrap().trim();
        assert!(!line.contains(&made.token));
        let site = format!(
            "site = 'shop'\ndomains = ['shop.example']\n{line}\n[[routes]]\npath = '/*'\nstatic = {{}}\n"
        );
        let read = verge_config::site::Site::from_toml(&site, verge_config::site::Context::Fleet);
        let hashes = read.unwrap().1.debug_tokens;
        assert_eq!(hashes, [<[u8; 32]>::from(Sha256::digest(&made.token))]);
    }
}
