//! The unix socket: what may be removed before, and what must be removed after.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::source::BindError;

/// Our socket's file. Removed when dropped, unless another one took its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove our socket");
        }
    }
}

/// Binds a socket of that mode. A stale one (nobody answers) is replaced; anything else in its place is left alone. Missing directories
/// are made.
pub(super) fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    remove_stale(path)?;
    let listen = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let listener = UnixListener::bind(path)?;
        let now = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.into(), identity: (now.dev(), now.ino()) };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        Ok((listener, file))
    };
    listen().map_err(|source| failed(path, source))
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(|source| failed(path, source))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.into() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "removed a stale socket");
            fs::remove_file(path).map_err(|source| failed(path, source))
        }
        Err(source) => Err(failed(path, source)),
    }
}

fn failed(path: &Path, source: io::Error) -> BindError {
    BindError::Bind { what: format!("unix socket {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_ours_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/fluent.sock");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let (listener, file) = bind(&path, 0o620).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_use_and_a_regular_file_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fluent.sock");
        let _bound = bind(&path, 0o666).unwrap();
        assert!(matches!(bind(&path, 0o666), Err(BindError::InUse { .. })));
        UnixStream::connect(&path).unwrap();

        let path = directory.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, 0o666), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn what_took_our_place_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fluent.sock");
        let (_listener, file) = bind(&path, 0o666).unwrap();
        fs::rename(&path, directory.path().join("old")).unwrap();
        fs::write(&path, "another").unwrap();
        drop(file);
        assert!(path.exists());
    }
}
