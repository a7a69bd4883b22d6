//! Host keys on consoles: cloud-init tells them between two lines, when it is done with all else.

const BEGIN: &str = "-----BEGIN SSH HOST KEY KEYS-----";
const END: &str = "-----END SSH HOST KEY KEYS-----";
/// Kinds of keys that are taken, the best first. OpenSSH no longer takes DSA.
const KINDS: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];
/// Shortest and longest key, in characters of base64.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 60..=2_000;

/// The best of the host keys that a console told last, as in `known_hosts`; none when it told none (yet).
pub fn told(console: &str) -> Option<String> {
    let (_, after) = console.rsplit_once(BEGIN)?;
    let (block, _) = after.split_once(END)?;
    let keys: Vec<(usize, String)> = block.lines().filter_map(key).collect();
    keys.into_iter().min().map(|(_, key)| key)
}

/// `[<prefix>] <kind> <key> [<comment>]`. The kernel may write into the same line, and systemd puts words before it.
fn key(line: &str) -> Option<(usize, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).find_map(|pair| {
        let rank = KINDS.iter().position(|kind| *kind == pair[0])?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        let good = KEY_CHARS.contains(&pair[1].len()) && pair[1].bytes().all(plain);
        good.then(|| (rank, format!("{} {}", pair[0], pair[1])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGVzdGtleXRlc3RrZXl0ZXN0a2V5dGVzdGtleXRlc3RrZXk1";

    #[test]
    fn the_best_key_of_the_last_block_counts() {
        let block = |lines: &str| format!("boot\r\n{BEGIN}\r\n{lines}\r\n{END}\r\nlogin: ");
        let console = block(&format!(
            "ecdsa-sha2-nistp256 {KEY} root@x\r\n[   9.1] cloud-init[55]: ssh-ed25519 {KEY} root@x\r\nssh-dss {KEY}"
        ));
        assert_eq!(told(&console), Some(format!("ssh-ed25519 {KEY}")));
        let rebuilt = format!("{console}{}", block(&format!("ssh-rsa {KEY}9 root@y")));
        assert_eq!(told(&rebuilt), Some(format!("ssh-rsa {KEY}9")));
        assert_eq!(told(&console.replace(END, "")), None, "it is still being told");
        assert_eq!(told(&block("ssh-ed25519 short")), None);
        assert_eq!(told(&block(&format!("ssh-ed25519 {KEY};rm"))), None);
        assert_eq!(told(&format!("ssh-ed25519 {KEY}")), None, "not between the lines");
        assert_eq!(told(""), None);
    }
}
