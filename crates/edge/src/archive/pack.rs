//! A run's folder, compressed and without its secrets, in a folder of its own. Blocks: call it where that is allowed.

use super::ArchiveError;
use crate::node::console::Mask;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use toci_core::log::arrange::{FILE_MAX_BYTES, FILES_MAX, Placed, Source, arrange, stored_as};
use toci_core::log::scrub::{Care, Scrubber};

/// Bytes of a file that decide whether it is text.
const HEAD_BYTES: usize = 8192;
/// Longest line that is looked at as one, in bytes.
const LINE_MAX_BYTES: u64 = 64 << 10;
/// Depth of folders at most.
const DEPTH_MAX: usize = 64;
/// Files that are looked at, at most; those beyond what is kept are named up to here.
const SEEN_MAX: usize = 2 * FILES_MAX;
/// First bytes of formats that are no text even when they look like it.
const NO_TEXT: [&[u8]; 9] = [
    b"\x1f\x8b",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"BZh",
    b"QFI\xfb",
    b"%PDF",
];

/// What was packed.
#[derive(Clone, Debug, Default)]
pub struct Pack {
    /// What is in it, in its order.
    pub files: Vec<Packed>,
    /// What is not, and why.
    pub left_out: Vec<(String, String)>,
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its path within the run, as people see it.
    pub name: String,
    /// Its size as people see it.
    pub bytes: u64,
    /// Its size as it is stored.
    pub stored: u64,
    /// Whether it is text.
    pub is_text: bool,
}

/// Packs a run's folder. Only plain files are taken; links are never followed.
pub fn pack(folder: &Path, into: &Path, mask: &Mask) -> Result<Pack, ArchiveError> {
    let mut pack = Pack::default();
    let sources = sources(folder, &mut pack)?;
    for placed in arrange(sources) {
        match placed {
            Placed::LeftOut { source, why } => pack.left_out.push((source, why.to_owned())),
            Placed::Kept { source, target } => {
                match one(&folder.join(&source), into, &target, mask) {
                    Ok(Some(packed)) => pack.files.push(packed),
                    Ok(None) => {
                        pack.left_out.push((source, "no text, and larger than 256 MiB".to_owned()));
                    }
                    Err(error) if error.is_full() => return Err(error),
                    Err(error) => pack.left_out.push((source, told(&error))),
                }
            }
        }
    }
    Ok(pack)
}

fn told(error: &ArchiveError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("it could not be read: {source}"),
        None => error.to_string(),
    }
}

/// All plain files below a folder.
fn sources(folder: &Path, pack: &mut Pack) -> Result<Vec<Source>, ArchiveError> {
    let mut out = Vec::new();
    let mut folders: Vec<(PathBuf, String, usize)> = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((here, prefix, depth)) = folders.pop() {
        let entries = match fs::read_dir(&here) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(ArchiveError::io("read", &here)(error)),
            Err(error) => {
                pack.left_out.push((prefix, format!("it could not be read: {error}")));
                continue;
            }
        };
        for entry in entries.flatten() {
            let Ok(facts) = entry.metadata() else { continue };
            // A name that is no text cannot be opened by its text; it is told of below.
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if out.len() >= SEEN_MAX {
                pack.left_out.push((format!("{prefix}…"), "too many files".to_owned()));
                return Ok(out);
            }
            if facts.is_dir() && depth < DEPTH_MAX {
                folders.push((entry.path(), format!("{path}/"), depth + 1));
            } else if facts.is_file() {
                out.push(Source { path, bytes: facts.len() });
            } else {
                pack.left_out.push((path, "neither a file nor a folder".to_owned()));
            }
        }
    }
    Ok(out)
}

/// Packs one file; none: it is too large for what it is.
fn one(
    source: &Path,
    into: &Path,
    target: &str,
    mask: &Mask,
) -> Result<Option<Packed>, ArchiveError> {
    let reading = || ArchiveError::io("read", source);
    let mut file = File::open(source).map_err(reading())?;
    let bytes = file.metadata().map_err(reading())?.len();
    let head = head(&mut file).map_err(reading())?;
    file.rewind().map_err(reading())?;
    let is_zipped = target.ends_with(".gz") && head.starts_with(b"\x1f\x8b");
    let is_text = if is_zipped { unzipped_is_text(&head) } else { looks_like_text(&head) };
    if !is_text && bytes > FILE_MAX_BYTES {
        return Ok(None);
    }
    let stored = stored_as(target, is_text);
    let place = into.join(&stored);
    let writing = || ArchiveError::io("write", &place);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(writing())?;
    }
    let out = BufWriter::new(File::create(&place).map_err(writing())?);
    let care = Care::of(target);
    let seen = match (is_text, is_zipped) {
        (false, _) => copied(file, out),
        (true, true) => {
            let unzipped = MultiGzDecoder::new(BufReader::new(file)).take(FILE_MAX_BYTES);
            text(&mut BufReader::new(unzipped), out, care, mask, 0)
        }
        (true, false) => text(&mut BufReader::new(file), out, care, mask, bytes),
    };
    let seen = seen.map_err(writing())?;
    let stored_bytes = fs::metadata(&place).map_err(writing())?.len();
    let name = toci_core::log::arrange::seen_as(&stored).to_owned();
    Ok(Some(Packed { name, bytes: seen, stored: stored_bytes, is_text }))
}

fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn looks_like_text(head: &[u8]) -> bool {
    !head.contains(&0) && !NO_TEXT.iter().any(|magic| head.starts_with(magic))
}

fn unzipped_is_text(head: &[u8]) -> bool {
    let mut first = Vec::new();
    // The head is cut somewhere, so an error at its end says nothing.
    let _ = MultiGzDecoder::new(head).take(HEAD_BYTES as u64).read_to_end(&mut first);
    looks_like_text(&first)
}

fn copied(file: File, mut out: BufWriter<File>) -> io::Result<u64> {
    let bytes = io::copy(&mut file.take(FILE_MAX_BYTES), &mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(bytes)
}

/// A text without its secrets. `bytes` is its size, if it can be cut in the middle.
fn text<R: BufRead + MaybeSeek>(
    source: &mut R,
    out: BufWriter<File>,
    care: Care,
    mask: &Mask,
    bytes: u64,
) -> io::Result<u64> {
    let mut writer = TextWriter {
        out: GzEncoder::new(out, Compression::fast()),
        scrubber: Scrubber::new(care),
        mask,
        bytes: 0,
    };
    if bytes <= FILE_MAX_BYTES {
        writer.lines(source, u64::MAX)?;
    } else {
        let half = FILE_MAX_BYTES / 2;
        writer.lines(source, half)?;
        let missing = bytes - FILE_MAX_BYTES;
        writer.write(format!("\n… {missing} bytes were left out here …\n").as_bytes())?;
        source.skip_to(bytes - half)?;
        writer.lines(source, u64::MAX)?;
    }
    let seen = writer.bytes;
    writer.out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(seen)
}

/// A source that can go on somewhere else.
trait MaybeSeek {
    fn skip_to(&mut self, at: u64) -> io::Result<()>;
}

impl MaybeSeek for BufReader<File> {
    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        self.seek(SeekFrom::Start(at)).map(drop)
    }
}

impl<R: Read> MaybeSeek for BufReader<io::Take<MultiGzDecoder<R>>> {
    fn skip_to(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct TextWriter<'a> {
    out: GzEncoder<BufWriter<File>>,
    scrubber: Scrubber,
    mask: &'a Mask,
    bytes: u64,
}

impl TextWriter<'_> {
    /// Lines up to the end, or to the first line's end behind so many bytes.
    fn lines(&mut self, source: &mut impl BufRead, max: u64) -> io::Result<()> {
        let (mut read, mut line) = (0, Vec::new());
        while read < max {
            line.clear();
            let got = source.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
            if got == 0 {
                break;
            }
            read += got as u64;
            let whole = String::from_utf8_lossy(&line);
            let (text, end) = match whole.strip_suffix('\n') {
                Some(text) => (text, "\n"),
                None => (&*whole, ""),
            };
            let clean = self.mask.apply(self.scrubber.line(text).into_owned());
            self.write(clean.as_bytes())?;
            self.write(end.as_bytes())?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders {
        from: tempfile::TempDir,
        into: tempfile::TempDir,
    }

    impl Folders {
        fn new() -> Folders {
            Folders { from: tempfile::tempdir().unwrap(), into: tempfile::tempdir().unwrap() }
        }

        fn write(&self, path: &str, bytes: &[u8]) {
            let place = self.from.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, bytes).unwrap();
        }

        fn pack(&self, mask: &Mask) -> Pack {
            pack(self.from.path(), self.into.path(), mask).unwrap()
        }

        fn text(&self, path: &str) -> String {
            let file = File::open(self.into.path().join(path)).unwrap();
            let mut text = String::new();
            MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
            text
        }
    }

    fn zipped(text: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn texts_are_compressed_without_their_secrets_and_the_rest_is_as_it_was() {
        let folders = Folders::new();
        folders.write("console.txt", b"x hunter2 y\n");
        folders.write("logs/a/b.log", b"\xff mysql://u:pw@h/ \n-----BEGIN PRIVATE KEY-----\nk\n-----END PRIVATE KEY-----\nend");
        folders.write("logs/old.log.gz", &zipped(b"hunter2 was here\n"));
        folders.write("logs/disk.gz", &zipped(b"a\0b"));
        folders.write("logs/shot.png", b"\x89PNG\r\n\x1a\n");
        folders.write("logs/nova.conf", b"admin_password = x\n");
        folders.write("logs/id_rsa", b"key");
        let pack = folders.pack(&Mask::new(["hunter2"]));
        assert_eq!(folders.text("console.txt.gz"), "x ******** y\n");
        let expected = "\u{fffd} mysql://u:********@h/ \n(a private key was taken out here)\n********\n********\nend";
        assert_eq!(folders.text("a/b.log.gz"), expected);
        assert_eq!(folders.text("old.log.gz"), "******** was here\n");
        assert_eq!(folders.text("nova.conf.gz"), "admin_password = ********\n");
        assert_eq!(fs::read(folders.into.path().join("shot.png")).unwrap(), b"\x89PNG\r\n\x1a\n");
        assert_eq!(fs::read(folders.into.path().join("disk.gz.bin")).unwrap(), zipped(b"a\0b"));
        let names: Vec<(&str, bool)> =
            pack.files.iter().map(|f| (f.name.as_str(), f.is_text)).collect();
        assert_eq!(
            names,
            [
                ("console.txt", true),
                ("a/b.log", true),
                ("disk.gz.bin", false),
                ("nova.conf", true),
                ("old.log", true),
                ("shot.png", false)
            ]
        );
        assert_eq!(pack.files[0].bytes, 13);
        assert_eq!(
            pack.left_out,
            [("logs/id_rsa".into(), "keys and passwords are never kept".into())]
        );
    }

    #[test]
    fn links_pipes_and_sockets_are_told_and_never_followed() {
        let folders = Folders::new();
        folders.write("console.txt", b"");
        std::os::unix::fs::symlink("/etc/passwd", folders.from.path().join("passwd")).unwrap();
        std::os::unix::fs::symlink("/etc", folders.from.path().join("etc")).unwrap();
        nix::unistd::mkfifo(&folders.from.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU)
            .unwrap();
        let pack = folders.pack(&Mask::default());
        assert_eq!(pack.files.len(), 1);
        let mut names: Vec<&str> = pack.left_out.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["etc", "passwd", "pipe"]);
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end_and_a_zip_bomb_is_cut() {
        let folders = Folders::new();
        let place = folders.from.path().join("long.txt");
        let mut file = BufWriter::new(File::create(&place).unwrap());
        let line = [b'x'; 1 << 16];
        file.write_all(b"first\n").unwrap();
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        for _ in 0..FILE_MAX_BYTES / (1 << 16) + 8 {
            file.write_all(&line).unwrap();
            zip.write_all(&line).unwrap();
        }
        file.write_all(b"\nlast\n").unwrap();
        file.into_inner().unwrap();
        folders.write("logs/bomb.log.gz", &zip.finish().unwrap());
        let pack = folders.pack(&Mask::default());
        let bytes = |name: &str| pack.files.iter().find(|f| f.name == name).unwrap().bytes;
        assert_eq!(bytes("bomb.log"), FILE_MAX_BYTES);
        assert!(
            (FILE_MAX_BYTES..FILE_MAX_BYTES + LINE_MAX_BYTES + 100).contains(&bytes("long.txt"))
        );
        let text = folders.text("long.txt.gz");
        assert!(text.starts_with("first\n") && text.ends_with("\nlast\n"));
        assert!(text.contains("bytes were left out here"));
    }
}
