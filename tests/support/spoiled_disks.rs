//! Small file systems to be spoiled: one in memory that fills up, and an ext4 in a file that turns read-only. Both need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A mounted tmpfs, unmounted when dropped.
pub struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    /// Mounts one of `bytes`; says why where that cannot be done.
    pub fn mount(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes},mode=700");
        mount(&["-t", "tmpfs", "-o", &size, "attestry-test", folder.path().to_str().unwrap()])?;
        Ok(Self { folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes `bytes` of its space.
    pub fn ballast(&self, bytes: usize) -> PathBuf {
        let path = self.folder.path().join("ballast");
        fs::write(&path, vec![0; bytes]).unwrap();
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}

/// An ext4 in a file that becomes read-only at its first error, as most are mounted. Unmounted when dropped.
pub struct Ext4 {
    folder: TempDir,
}

impl Ext4 {
    /// Makes and mounts one of `bytes`; says why where that cannot be done.
    pub fn make(bytes: u64) -> Result<Self, String> {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        fs::File::create(disk.image()).and_then(|image| image.set_len(bytes)).unwrap();
        run("mkfs.ext4", &["-q", disk.image().to_str().unwrap()])?;
        fs::create_dir(disk.path()).unwrap();
        disk.mount()?;
        if !disk.trigger()?.exists() {
            return Err("this kernel has no /sys/fs/ext4/.../trigger_fs_error".into());
        }
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// An error in the file system, upon which the kernel lets nobody write any more, whatever is open.
    pub fn fail(&self) {
        fs::write(self.trigger().unwrap(), "1").unwrap();
    }

    /// Mounts it anew, with which it can be written again. Nobody may have a file on it open.
    pub fn heal(&self) {
        run("umount", &[self.path().to_str().unwrap()]).unwrap();
        self.mount().unwrap();
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) -> Result<(), String> {
        mount(&[
            "-o",
            "loop,errors=remount-ro",
            self.image().to_str().unwrap(),
            self.path().to_str().unwrap(),
        ])
    }

    fn trigger(&self) -> Result<PathBuf, String> {
        let device = run("findmnt", &["--noheadings", "--output", "SOURCE", self.path().to_str().unwrap()])?;
        let device = device.trim().trim_start_matches("/dev/").to_owned();
        Ok(Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error"))
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if let Err(why) = run("umount", &["--lazy", self.path().to_str().unwrap()]) {
            eprintln!("{} stays mounted: {why}", self.path().display());
        }
    }
}

fn mount(arguments: &[&str]) -> Result<(), String> {
    run("mount", arguments).map(drop)
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
