//! Commands of bpf(2) that aya does not offer in the needed form. No other file calls bpf(2).

#![expect(unsafe_code, reason = "bpf(2) reads and writes memory by address")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::libc;

use crate::kernel::plain::Plain;

/// `BPF_MAP_CREATE` (`include/uapi/linux/bpf.h`).
const MAP_CREATE: libc::c_int = 0;
/// `BPF_MAP_LOOKUP_ELEM`.
const MAP_LOOKUP_ELEM: libc::c_int = 1;
/// `BPF_OBJ_GET`, since 4.4.
const OBJ_GET: libc::c_int = 7;
/// `BPF_LINK_UPDATE`, of links of cgroups since 5.7.
const LINK_UPDATE: libc::c_int = 29;
/// `BPF_MAP_TYPE_ARRAY` of `enum bpf_map_type`.
const ARRAY: u32 = 2;

/// `BPF_MAP_LOOKUP_BATCH` (`include/uapi/linux/bpf.h`), since 5.6.
const MAP_LOOKUP_BATCH: libc::c_int = 24;
/// `BPF_LINK_CREATE`, for iterators since 5.8.
const LINK_CREATE: libc::c_int = 28;
/// `BPF_ITER_CREATE`, since 5.8.
const ITER_CREATE: libc::c_int = 33;
/// `BPF_TRACE_ITER` of `enum bpf_attach_type`.
const TRACE_ITER: u32 = 28;

/// `BPF_PROG_QUERY`, since 4.15.
const PROG_QUERY: libc::c_int = 16;
/// `BPF_CGROUP_SOCK_OPS` of `enum bpf_attach_type`.
const CGROUP_SOCK_OPS: u32 = 3;
/// `BPF_F_ALLOW_MULTI`: the programs of a cgroup let others be attached beside them.
const ALLOW_MULTI: u32 = 1 << 1;

/// The member `query` of `union bpf_attr`.
#[derive(Debug)]
#[repr(C)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
}

/// The member `batch` of `union bpf_attr`.
#[derive(Debug)]
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The first members of `link_create` of `union bpf_attr`. The kernel takes the absent ones as zero.
#[derive(Debug)]
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// The first members of `union bpf_attr` for the creation of a map.
#[derive(Debug)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// The members of `union bpf_attr` for one element of a map.
#[derive(Debug)]
#[repr(C)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The members of `union bpf_attr` for a pin.
#[derive(Debug)]
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The member `link_update` of `union bpf_attr`.
#[derive(Debug)]
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The member `iter_create` of `union bpf_attr`.
#[derive(Debug)]
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// One part of a map.
#[derive(Debug)]
pub(super) struct Batch<K, V> {
    /// The keys of the entries.
    pub keys: Vec<K>,
    /// The values, in the order of `keys`.
    pub values: Vec<V>,
    /// Where the next part begins; none after the last one.
    pub next: Option<u32>,
}

/// Reads up to `room` entries of `map`, from bucket (or array index) `from` on. `buffers` is reused memory.
///
/// # Safety
/// The map's keys have the size of `K`, and its values that of `V`: the kernel writes so many bytes an entry.
///
/// # Errors
/// `ENOSPC`: the next bucket alone has more than `room` entries. Others: the kernel refuses.
pub(super) unsafe fn lookup_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    room: usize,
    buffers: Batch<K, V>,
) -> (Batch<K, V>, io::Result<()>) {
    let mut batch = buffers;
    batch.keys.clear();
    batch.keys.reserve(room);
    batch.values.clear();
    batch.values.reserve(room);
    let mut next = 0_u32;
    let mut attributes = LookupBatch {
        in_batch: from.as_ref().map_or(0, |from| std::ptr::from_ref(from).expose_provenance() as u64),
        out_batch: (&raw mut next).expose_provenance() as u64,
        keys: batch.keys.as_mut_ptr().expose_provenance() as u64,
        values: batch.values.as_mut_ptr().expose_provenance() as u64,
        count: room as u32,
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: both numbers live until the call returns, and there is room for `room` keys and values, whose
    // sizes are the map's (the caller's promise).
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<LookupBatch>())
    };
    batch.next = Some(next);
    if done < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOENT) {
            return (batch, Err(error));
        }
        // ENOENT: these entries are the last ones.
        batch.next = None;
    }
    let read = room.min(attributes.count as usize);
    // SAFETY: the kernel has written `read` keys and values, and any bytes are a `Plain` key and value.
    unsafe {
        batch.keys.set_len(read);
        batch.values.set_len(read);
    }
    (batch, Ok(()))
}

/// Links an iterator program, so that it can be walked any number of times.
///
/// # Errors
/// The kernel refuses.
pub(super) fn link_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    descriptor(
        LINK_CREATE,
        &LinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_fd: 0,
            attach_type: TRACE_ITER,
            flags: 0,
        },
    )
}

/// Opens one walk of a linked iterator. A walk over sockets covers the network namespace of this thread
/// (`bpf_iter_init_seq_net()`, `net/ipv4/tcp_ipv4.c`, since 5.9).
///
/// # Errors
/// The kernel refuses.
pub(super) fn open_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    descriptor(ITER_CREATE, &IterCreate { link_fd: link.as_raw_fd().cast_unsigned(), flags: 0 })
}

/// Makes an array of one value of `value_size` bytes. The kernel keeps the first 15 bytes of the name.
///
/// # Errors
/// The kernel refuses.
pub(super) fn create_array(name: &str, value_size: u32, map_flags: u32) -> io::Result<OwnedFd> {
    let mut map_name = [0; 16];
    for (room, byte) in map_name.iter_mut().take(15).zip(name.bytes()) {
        *room = byte;
    }
    let (key_size, max_entries) = (4, 1);
    descriptor(
        MAP_CREATE,
        &MapCreate {
            map_type: ARRAY,
            key_size,
            value_size,
            max_entries,
            map_flags,
            inner_map_fd: 0,
            numa_node: 0,
            map_name,
        },
    )
}

/// Opens a pin, whatever is pinned there. Unlike a look-up by id, this needs no `CAP_SYS_ADMIN`.
///
/// # Errors
/// The kernel refuses, or there is no pin.
pub(super) fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    let pathname = path.as_ptr().expose_provenance() as u64;
    descriptor(OBJ_GET, &ObjectGet { pathname, bpf_fd: 0, file_flags: 0 })
}

/// Replaces the program of a link. Each call of the hook runs the old program or the new one
/// (`cgroup_bpf_replace()`, `kernel/bpf/cgroup.c`).
///
/// # Errors
/// The kernel refuses: links of tracing programs cannot be updated.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the kernel only reads these attributes, which outlive the call.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, LINK_UPDATE, &raw const attributes, size_of::<LinkUpdate>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The first value of an array.
///
/// # Safety
/// The map is an array with one value for all CPUs, of `size` bytes.
///
/// # Errors
/// The kernel refuses.
pub(super) unsafe fn first_value(map: BorrowedFd<'_>, size: usize) -> io::Result<Vec<u8>> {
    let key = 0_u32;
    let mut value = vec![0_u8; size];
    let attributes = MapElement {
        map_fd: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: (&raw const key).expose_provenance() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: key and value outlive the call, and the value has the size of the map's (the caller's promise).
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, MAP_LOOKUP_ELEM, &raw const attributes, size_of::<MapElement>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Calls a command that makes a descriptor and only reads its attributes.
fn descriptor<A>(command: libc::c_int, attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: the attributes outlive the call. The only address in them is a path, which outlives it, too.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// True if a program has the socket operations of a cgroup for itself, so that no other can be attached beside it. False
/// if the kernel does not say so.
pub(super) fn sock_ops_are_taken(cgroup: BorrowedFd<'_>) -> bool {
    let mut query = ProgQuery {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: CGROUP_SOCK_OPS,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: 0,
        prog_cnt: 0,
        reserved: 0,
    };
    // SAFETY: the kernel reads and writes these attributes only, which outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<ProgQuery>()) };
    // Without room for their ids, the kernel counts the programs and fails with ENOSPC (`__cgroup_bpf_query()`).
    let is_counted = done == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ENOSPC);
    is_counted && query.prog_cnt > 0 && query.attach_flags & ALLOW_MULTI == 0
}
