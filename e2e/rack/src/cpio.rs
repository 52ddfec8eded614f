//! A file archive that the kernel unpacks after the guests' image: cpio's "newc" form, as Linux'
//! Documentation/driver-api/early-userspace/buffer-format.rst has it.

use std::io::{self, Write};

/// Mode bits of a directory and of a regular file (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// Writes an archive.
pub struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An archive with nothing in it yet.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds a directory; its parents must be there.
    ///
    /// # Errors
    /// What writing comes to.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Adds a program.
    ///
    /// # Errors
    /// What writing comes to.
    pub fn program(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | 0o755, content)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// What writing comes to.
    pub fn end(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let (inode, links, size) = (self.inode, 1, content.len());
        self.inode += 1;
        let name = path.trim_start_matches('/');
        // Magic, inode, mode, owner, group, links, time, size, device (2), special device (2), name's length with its end, check.
        let head = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{1:08x}{0:08x}{name}\0",
            0,
            name.len() + 1
        );
        self.out.write_all(head.as_bytes())?;
        self.pad(head.len())?;
        self.out.write_all(content)?;
        self.pad(size)
    }

    /// Names and contents end at multiples of 4.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..(4 - written % 4) % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_itself_reads_what_is_written() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("strand").unwrap();
        archive.program("strand/odd", b"12345").unwrap();
        archive.program("/strand/even", b"1234").unwrap();
        let bytes = archive.end().unwrap();
        assert_eq!(bytes.len() % 4, 0);

        let dir = tempfile::tempdir().unwrap();
        let Ok(mut child) = Command::new("cpio")
            .args(["--extract", "--quiet"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
        else {
            // The rack's tools bring it; the layout above is checked wherever they are.
            return;
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(child.wait().unwrap().success());
        let read = |name: &str| std::fs::read(dir.path().join("strand").join(name)).unwrap();
        assert_eq!(read("odd"), b"12345");
        assert_eq!(read("even"), b"1234");
    }
}
