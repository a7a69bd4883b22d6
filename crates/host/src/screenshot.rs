//! PPM to PNG, for a libvirt or QEMU that gives no PNG by itself. The PNG is not compressed:
//! a screenshot is looked at once.

/// A binary PPM (`P6`, 8 bit) as PNG; `None` when it is not one.
#[must_use]
pub fn ppm_to_png(ppm: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    let mut field = || {
        while ppm.get(at)?.is_ascii_whitespace() {
            at += 1;
        }
        let start = at;
        while !ppm.get(at)?.is_ascii_whitespace() {
            at += 1;
        }
        std::str::from_utf8(&ppm[start..at]).ok()
    };
    if field()? != "P6" {
        return None;
    }
    let width: u32 = field()?.parse().ok()?;
    let height: u32 = field()?.parse().ok()?;
    if field()? != "255" {
        return None;
    }
    let row = usize::try_from(width).ok()?.checked_mul(3).filter(|r| *r > 0)?;
    let size = row.checked_mul(usize::try_from(height).ok()?)?;
    let pixels = ppm.get(at + 1..)?.get(..size)?;
    let mut raw = Vec::with_capacity(size + size / row);
    for line in pixels.chunks(row) {
        raw.push(0); // Filter type: none.
        raw.extend_from_slice(line);
    }
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]); // 8 bit, RGB.
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut png, b"IHDR", &header)?;
    chunk(&mut png, b"IDAT", &stored_zlib(&raw))?;
    chunk(&mut png, b"IEND", &[])?;
    Some(png)
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) -> Option<()> {
    png.extend_from_slice(&u32::try_from(data.len()).ok()?.to_be_bytes());
    let start = png.len();
    png.extend_from_slice(kind);
    png.extend_from_slice(data);
    let crc = crc32(&png[start..]);
    png.extend_from_slice(&crc.to_be_bytes());
    Some(())
}

/// zlib with stored blocks only (RFC 1950, RFC 1951 3.2.4).
fn stored_zlib(raw: &[u8]) -> Vec<u8> {
    let mut z = vec![0x78, 0x01];
    let mut blocks = raw.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        z.push(u8::from(blocks.peek().is_none()));
        let n = u16::try_from(block.len()).unwrap_or(u16::MAX);
        z.extend_from_slice(&n.to_le_bytes());
        z.extend_from_slice(&(!n).to_le_bytes());
        z.extend_from_slice(block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in raw {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    z.extend_from_slice(&((b << 16) | a).to_be_bytes());
    z
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_turned_into_png() {
        let png = ppm_to_png(b"P6\n2 1\n255\n\xff\0\0\0\xff\0").unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(&png[16..24], &[0, 0, 0, 2, 0, 0, 0, 1]);
        assert!(ppm_to_png(b"P5\n2 1\n255\n").is_none());
        assert!(ppm_to_png(b"P6\n2 1\n255\n\xff").is_none());
        assert!(ppm_to_png(b"P6\n0 9\n255\n").is_none());
    }
}
