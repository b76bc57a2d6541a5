//! Names of the errors that a TCP socket can end with.

use nix::libc;

/// Pairs numbers of errors with their names.
macro_rules! errno_names {
    ($($name:ident)*) => {
        /// The numbers that have a name here.
        const NUMBERS: &[i32] = &[$(libc::$name),*];

        /// The name of an errno number (`ECONNREFUSED`); `None` for an error that a TCP socket does not end with.
        pub(crate) fn name(errno: u16) -> Option<&'static str> {
            match i32::from(errno) {
                $(libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

errno_names! {
    EPERM EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY ENODEV EINVAL EPIPE
    EMSGSIZE EPROTO ENOPROTOOPT EPROTONOSUPPORT EOPNOTSUPP EAFNOSUPPORT
    EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ENONET
    ECANCELED EKEYREJECTED EKEYEXPIRED EBADMSG
}

/// The number with this name; `None` for a name that [`name`] does not give.
pub(crate) fn from_name(wanted: &str) -> Option<u16> {
    NUMBERS
        .iter()
        .filter_map(|&number| u16::try_from(number).ok())
        .find(|&number| name(number) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_inverse() {
        assert_eq!(name(111), Some("ECONNREFUSED"));
        assert_eq!(name(0), None);
        let named: Vec<u16> = (0..=u16::MAX).filter(|&number| name(number).is_some()).collect();
        assert_eq!(named.len(), NUMBERS.len());
        for number in named {
            assert_eq!(from_name(name(number).unwrap()), Some(number));
        }
        assert_eq!(from_name("EWOULDBLOCK"), None);
    }
}
