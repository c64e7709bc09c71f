/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The kernel ABI of ckpt: memory that remembers what changed.
 *
 * This file is the only source of the ABI. The Rust sides of it, in the module
 * and in the library, are made from it by `make bindings`.
 *
 * Words. An *arena* is a run of pages that the module owns and that programs
 * map shared. A *commit* closes an *epoch* and gives it a number. A *delta* is
 * the set of pages whose content may differ between an epoch and the last one.
 * A *cursor* is a consumer's own note of the epoch up to which it has
 * everything; the kernel keeps none, so any number of consumers can follow one
 * arena and no call here takes anything away from another consumer.
 *
 * Rules for every call:
 *
 *  - `size` is set by the caller to the size of the structure it knows. A size
 *    below the first version's, above 4096, or different from the size in the
 *    ioctl number is EINVAL. A larger structure than this kernel knows is
 *    accepted when what it does not know is zero, else E2BIG; the part it does
 *    not know is left alone.
 *  - An unknown flag or a non-zero reserved field is EINVAL.
 *  - An unknown command is ENOTTY. So is a command on a descriptor of another
 *    kind than it is for: device, arena, snapshot.
 *  - A pointer that cannot be read or written is EFAULT.
 *  - Pointers are passed as __u64. Sizes and offsets in pages are in units of
 *    1 << page_shift bytes.
 *  - When a call fails, output fields are unspecified unless its text says
 *    otherwise, and the arena is as it was.
 */
#ifndef _UAPI_LINUX_CKPT_H
#define _UAPI_LINUX_CKPT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define CKPT_DEVICE_PATH "/dev/ckpt"
#define CKPT_IOC_MAGIC 0xC5

/* Raised when something is added. What is there never changes. */
#define CKPT_ABI_VERSION 4

/* With the closing NUL. */
#define CKPT_NAME_MAX 64

/* The largest arena, in bytes: 16 TiB. */
#define CKPT_ARENA_MAX_BYTES (1ULL << 44)

/*
 * ----------------------------------------------------------------------------
 * Commands on /dev/ckpt
 * ----------------------------------------------------------------------------
 */

/* How an arena's pages are tracked: ckpt_version.trackers, ckpt_info.tracker. */
#define CKPT_TRACKER_ARMED (1U << 0) /* first write to a page in an epoch faults */
/*
 * Since version 2. Pages that keep being written stay writable, and the
 * processor's own dirty bits tell which of them changed.
 */
#define CKPT_TRACKER_ADAPTIVE (1U << 1)

/**
 * struct ckpt_version - argument of CKPT_IOC_VERSION
 * @size:        in: sizeof(struct ckpt_version)
 * @abi_version: out: CKPT_ABI_VERSION of the module
 * @trackers:    out: bits CKPT_TRACKER_* that this kernel can do
 * @page_shift:  out: log2 of the page size
 * @arena_max_bytes: out: largest arena that can be created
 * @release:     out: version of the module, NUL-terminated
 */
struct ckpt_version {
	__u32 size;
	__u32 abi_version;
	__u32 trackers;
	__u32 page_shift;
	__u64 arena_max_bytes;
	char release[32];
};

/*
 * Only the descriptor gives access: CKPT_IOC_OPEN refuses everybody but those
 * with CAP_CHECKPOINT_RESTORE, and CKPT_IOC_LIST shows it to nobody else.
 */
#define CKPT_CREATE_PRIVATE (1U << 0)

/**
 * struct ckpt_create - argument of CKPT_IOC_CREATE
 * @size:      in: sizeof(struct ckpt_create)
 * @flags:     in: CKPT_CREATE_*
 * @len_bytes: in: size of the arena, a multiple of the page size, above zero,
 *             at most CKPT_ARENA_MAX_BYTES. It is a reservation: a page costs
 *             memory from its first access on, not before
 * @epoch:     in: last epoch that already has a meaning; the arena's first
 *             commit is @epoch + 1. Zero for an arena without a past; at most
 *             2^63 - 1
 * @name:      in: NUL-terminated, 1 to 63 bytes, printable ASCII; for people,
 *             need not be unique
 * @id:        out: id of the arena, never used again while the module is loaded
 * @fd:        out: descriptor of the arena, close-on-exec, readable and writable
 * @reserved:  in: zero
 *
 * Errors: EINVAL (size or epoch out of range, bad name), EMFILE, ENFILE, ENOMEM.
 */
struct ckpt_create {
	__u32 size;
	__u32 flags;
	__u64 len_bytes;
	__u64 epoch;
	char name[CKPT_NAME_MAX];
	__u64 id;
	__s32 fd;
	__u32 reserved;
};

/*
 * The descriptor can ask and read, but not map, commit or reserve, nor, since
 * version 3, request, acknowledge or subscribe. It can map the control page.
 */
#define CKPT_OPEN_RDONLY (1U << 0)

/**
 * struct ckpt_open - argument of CKPT_IOC_OPEN
 * @size:     in: sizeof(struct ckpt_open)
 * @flags:    in: CKPT_OPEN_*
 * @id:       in: id of the arena
 * @fd:       out: a new descriptor of it, close-on-exec
 * @reserved: in: zero
 *
 * Allowed to a caller whose effective uid is the uid that created the arena,
 * unless it is private, and to one with CAP_CHECKPOINT_RESTORE in the creator's
 * user namespace. Others are handed descriptors by SCM_RIGHTS.
 *
 * Errors: ENOENT (no such arena, or none that is still open anywhere),
 * EACCES (not allowed), EMFILE, ENFILE, ENOMEM.
 */
struct ckpt_open {
	__u32 size;
	__u32 flags;
	__u64 id;
	__s32 fd;
	__u32 reserved;
};

/**
 * struct ckpt_list - argument of CKPT_IOC_LIST
 * @size:       in: sizeof(struct ckpt_list)
 * @flags:      in: zero
 * @start_id:   in: first id wanted; out: where the next call goes on
 * @entries:    in: address of an array of struct ckpt_info
 * @entry_size: in: sizeof(struct ckpt_info); a shorter or longer one follows
 *              the rule for @size, and the part this kernel does not know is
 *              zeroed
 * @capacity:   in: entries that fit, at least 1
 * @count:      out: entries written
 * @more:       out: 1 when there are more at or after @start_id, else 0
 *
 * Lists, by ascending id, the arenas that the caller could open.
 *
 * Errors: EINVAL, EFAULT, ENOMEM.
 */
struct ckpt_list {
	__u32 size;
	__u32 flags;
	__u64 start_id;
	__u64 entries;
	__u32 entry_size;
	__u32 capacity;
	__u32 count;
	__u32 more;
};

/*
 * ----------------------------------------------------------------------------
 * Commands on an arena's descriptor
 *
 * mmap() of the descriptor: shared, and through a writable descriptor only; a
 * private mapping is EINVAL, a read-only descriptor EACCES, a range beyond the
 * arena ENXIO. The offset is the arena's. The mapping is not inherited by
 * fork() and not part of core dumps. Any number of mappings, in any number of
 * processes. Touching a page for the first time needs memory: when the page
 * cannot be charged to RLIMIT_MEMLOCK of the creator, the access gets SIGBUS
 * (see CKPT_IOC_RESERVE for a way to know before); when the memory cgroup is
 * full, the kernel's OOM handling applies.
 *
 * pread() reads the arena's current content; a page never touched reads as
 * zeros and stays untouched. Reading at or after the end gives 0. write() is
 * refused with EINVAL.
 *
 * poll() reports POLLIN when a commit was made that no CREATE, OPEN, INFO,
 * COMMIT or DELTA call on this descriptor has told of yet, and, since version 3,
 * POLLPRI while a commit is requested.
 *
 * A descriptor stays good when the process that made the arena is gone; the
 * arena is freed with its last descriptor and mapping. Another process can go on
 * with it then: see CKPT_IOC_TAKEOVER.
 * ----------------------------------------------------------------------------
 */

#define CKPT_INFO_PRIVATE (1U << 0) /* made with CKPT_CREATE_PRIVATE */
/* Since version 4. Somebody keeps it for another program: see CKPT_IOC_KEEP. */
#define CKPT_INFO_KEPT (1U << 1)

/**
 * struct ckpt_info - argument of CKPT_IOC_INFO, entry of CKPT_IOC_LIST
 * @size:           in: sizeof(struct ckpt_info)
 * @flags:          out: CKPT_INFO_*
 * @id:             out: the arena's id
 * @len_bytes:      out: its size
 * @epoch:          out: the last commit, or what CREATE was given before any;
 *                  one that was quiet does not count
 * @resident_pages: out: pages that have memory
 * @changed_pages:  out: pages noted as changed since the last commit. A page
 *                  that the last commit left open is not among them before the
 *                  next one finds it changed, so this can be less than that
 *                  will tell
 * @created_ns:     out: CLOCK_BOOTTIME of creation
 * @committed_ns:   out: CLOCK_BOOTTIME of @epoch's commit, 0 before any
 * @uid:            out: effective uid of the creator, as the caller's user
 *                  namespace sees it
 * @pid:            out: process that created it, or the last one that took it
 *                  over, as the caller's pid namespace sees it; 0 when that
 *                  process is gone or not visible
 * @tracker:        out: CKPT_TRACKER_* in use
 * @page_shift:     out: log2 of the page size
 * @name:           out: NUL-terminated
 *
 * In a list entry @size is an output: what the kernel filled in.
 */
struct ckpt_info {
	__u32 size;
	__u32 flags;
	__u64 id;
	__u64 len_bytes;
	__u64 epoch;
	__u64 resident_pages;
	__u64 changed_pages;
	__u64 created_ns;
	__u64 committed_ns;
	__u32 uid;
	__s32 pid;
	__u32 tracker;
	__u32 page_shift;
	char name[CKPT_NAME_MAX];
};

/**
 * struct ckpt_reserve - argument of CKPT_IOC_RESERVE
 * @size:     in: sizeof(struct ckpt_reserve)
 * @flags:    in: zero
 * @pages:    in: pages of the arena, in all, that shall be chargeable
 * @charged:  out: pages charged now, at least @pages
 *
 * Charges @pages pages to the user that created the arena, against the
 * RLIMIT_MEMLOCK that the creator had then, so that touching that many cannot
 * fail for this limit later. Allocates nothing. Asking for less than is charged
 * already changes nothing. Does not take from the memory cgroup. Charges are
 * given back when the arena is freed. A creator with CAP_IPC_LOCK is not
 * limited. A process that takes the arena over brings its limit along: see
 * CKPT_IOC_TAKEOVER.
 *
 * Errors: ENOMEM (RLIMIT_MEMLOCK), EINVAL (more than the arena has),
 * EBADF (read-only descriptor).
 */
struct ckpt_reserve {
	__u32 size;
	__u32 flags;
	__u64 pages;
	__u64 charged;
};

/*
 * Since version 2: with a snapshot of what changed.
 */
#define CKPT_COMMIT_SNAPSHOT (1U << 0)

/*
 * Since version 4: nobody but the caller learns of it. The pages are in no state
 * that the program would have anybody see, in the middle of going back to an
 * earlier one, say; what it wants is a delta.
 */
#define CKPT_COMMIT_QUIET (1U << 1)

/* Snapshots of one arena that can be open at the same time. */
#define CKPT_SNAPSHOTS_MAX 64

/**
 * struct ckpt_commit - argument of CKPT_IOC_COMMIT
 * @size:          in: sizeof(struct ckpt_commit)
 * @flags:         in: CKPT_COMMIT_*
 * @epoch:         out: the epoch that this call closed
 * @changed_pages: out: pages stamped with it
 * @duration_ns:   out: time for which writers had to wait, from taking the
 *                 barrier to releasing it
 * @since:         in, with CKPT_COMMIT_SNAPSHOT: the snapshot holds the pages
 *                 stamped after this epoch, so zero takes every page that was
 *                 ever written; else zero
 * @reserve_pages: in, with CKPT_COMMIT_SNAPSHOT: how many of its pages may at
 *                 most be copied aside, zero for all of them; else zero. out:
 *                 how many may be, which is fewer when RLIMIT_MEMLOCK of the
 *                 creator says so
 * @snapshot_pages: out: pages in the snapshot, zero without one
 * @snapshot_fd:   out: a descriptor of the snapshot, close-on-exec; -1 without
 *                 CKPT_COMMIT_SNAPSHOT
 * @reserved:      in: zero
 *
 * All from @since on exist since version 2; CKPT_COMMIT_SNAPSHOT with a
 * structure that ends before them is EINVAL.
 *
 * Closes the epoch. Every page written since the previous commit, by whatever
 * means and through whatever mapping, is stamped with the new epoch. A write
 * that happens before the call is in this epoch or an earlier one; a write
 * after its return is in a later one; a write at the same time is in this one
 * or the next, and never in none. A page that is pinned for DMA at that moment
 * is stamped now and again by the next commit. Two commits at once get two
 * epochs.
 *
 * A snapshot is an immutable view of its pages as of the commit. Nothing is
 * copied by the commit: the pages are frozen, and the first write to a frozen
 * page copies it aside for the snapshots that hold it. When as many have been
 * copied aside as @reserve_pages allows, the writer waits until the snapshot's
 * consumer thaws pages or closes it; the wait ends with a fatal signal. So who
 * writes to the arena between the commit and the thawing, and is the consumer
 * as well, has to reserve all. A debugger's write (ptrace, /proc/PID/mem) does
 * not wait: for it a page is copied beyond the reserve. The reserve is charged
 * to RLIMIT_MEMLOCK of the creator at the commit, copies to the memory cgroup
 * when they are made. A page that is pinned for DMA is in the snapshot as the
 * device leaves it.
 *
 * A quiet commit closes its epoch and stamps pages as any other, and that is all:
 * subscriptions and a request wait for the next one that is not quiet, poll()
 * and CKPT_IOC_WAIT do not report it, CKPT_IOC_INFO and the control page tell the
 * commit before it. So what a subscriber gets next is what changed over both.
 * CKPT_IOC_DELTA knows of it: its @epoch can be above theirs.
 *
 * Errors: EBADF (read-only descriptor), EINTR (a fatal signal came while
 * waiting; nothing was committed), EOVERFLOW (no epoch is left: the last one is
 * 2^63 - 1). With CKPT_COMMIT_SNAPSHOT also ERANGE (@since is after the last
 * commit), EBUSY (CKPT_SNAPSHOTS_MAX are open), EMFILE, ENFILE, ENOMEM; after
 * ENOMEM the epoch may have been closed all the same, with @epoch unspecified,
 * which takes nothing from any cursor.
 */
struct ckpt_commit {
	__u32 size;
	__u32 flags;
	__u64 epoch;
	__u64 changed_pages;
	__u64 duration_ns;
	__u64 since;
	__u64 reserve_pages;
	__u64 snapshot_pages;
	__s32 snapshot_fd;
	__u32 reserved;
};

/**
 * struct ckpt_range - a run of pages
 * @pgoff: first page
 * @pages: number of pages, above zero
 */
struct ckpt_range {
	__u64 pgoff;
	__u64 pages;
};

/**
 * struct ckpt_delta - argument of CKPT_IOC_DELTA
 * @size:        in: sizeof(struct ckpt_delta)
 * @flags:       in: zero
 * @since:       in: the cursor: pages stamped by a later epoch are wanted. Zero
 *               wants every page that was ever written and committed
 * @epoch:       out: the last commit when the call began, quiet or not; the
 *               cursor's next value once all ranges of the delta have been taken
 * @start_pgoff: in: first page of interest, zero to begin; out: where the next
 *               call goes on when @more is 1
 * @ranges:      in: address of an array of struct ckpt_range
 * @capacity:    in: entries that fit, at least 1
 * @count:       out: entries written: ascending, disjoint, not adjacent
 * @pages:       out: sum of the entries' pages
 * @more:        out: 1 when the array was too small and there is more
 * @reserved:    in: zero
 *
 * Tells which pages were stamped after @since. Changes nothing. When it takes
 * several calls, the cursor's next value is the @epoch of the first; commits in
 * between can only add pages to what the later calls tell.
 *
 * Errors: ERANGE (@since is after the last commit), EINVAL, EFAULT, ENOMEM.
 */
struct ckpt_delta {
	__u32 size;
	__u32 flags;
	__u64 since;
	__u64 epoch;
	__u64 start_pgoff;
	__u64 ranges;
	__u32 capacity;
	__u32 count;
	__u64 pages;
	__u32 more;
	__u32 reserved;
};

/**
 * struct ckpt_stats - argument of CKPT_IOC_STATS
 * @size:           in: sizeof(struct ckpt_stats)
 * @flags:          in: zero
 * @resident_pages: pages that have memory
 * @charged_pages:  pages charged to RLIMIT_MEMLOCK
 * @bytes_held:     memory held by the arena: pages and bookkeeping
 * @read_faults:    faults that gave a page for reading
 * @write_faults:   faults that noted a page and made it writable; a page that
 *                  was left open takes none
 * @late_notes:     pages noted without such a fault: by the kernel's own writes
 *                  and by unmapping
 * @commits:        commits made
 * @committed_pages: pages stamped, over all commits
 * @rearmed_spans:  passes over runs of page-table entries, over all commits,
 *                  where page tables could not be read directly
 * @rearmed_pages:  entries that those passes went over
 * @commit_ns:      time in commit, over all commits
 * @commit_ns_max:  the longest of them
 * @commit_ns_last: the last of them
 * @deltas:         delta calls answered
 * @open_pages:     pages that stay writable from commit to commit
 * @open_chunks:    chunks of 512 pages that have such pages
 * @chunks:         chunks that have memory
 * @chunk_openings: times that a chunk was opened as a whole, after many faults
 *                  in one epoch
 * @kept_pages:     pages that were left writable by a commit because they had
 *                  been written before, over all commits
 * @closed_pages:   pages that were armed again because they had stayed clean
 * @direct_harvests: chunks harvested by reading page tables directly
 * @harvested_ptes: page-table entries looked at by commits
 * @flushes:        flushes of translation buffers that commits asked for; a
 *                  pass of @rearmed_spans does one of its own
 * @snapshots:      snapshots open now
 * @snapshots_made: snapshots made
 * @frozen_pages:   pages frozen, over all snapshots made
 * @copied_pages:   pages copied aside for them
 * @copy_waits:     times that a writer had to wait for a consumer
 *
 * All from @open_pages on exist since version 2.
 *
 * All but @size and @flags are outputs, counted since the arena was created.
 */
struct ckpt_stats {
	__u32 size;
	__u32 flags;
	__u64 resident_pages;
	__u64 charged_pages;
	__u64 bytes_held;
	__u64 read_faults;
	__u64 write_faults;
	__u64 late_notes;
	__u64 commits;
	__u64 committed_pages;
	__u64 rearmed_spans;
	__u64 rearmed_pages;
	__u64 commit_ns;
	__u64 commit_ns_max;
	__u64 commit_ns_last;
	__u64 deltas;
	__u64 open_pages;
	__u64 open_chunks;
	__u64 chunks;
	__u64 chunk_openings;
	__u64 kept_pages;
	__u64 closed_pages;
	__u64 direct_harvests;
	__u64 harvested_ptes;
	__u64 flushes;
	__u64 snapshots;
	__u64 snapshots_made;
	__u64 frozen_pages;
	__u64 copied_pages;
	__u64 copy_waits;
};

/*
 * Since version 3: what a program and its consumers tell each other.
 *
 * mmap() of one page at this offset of an arena's descriptor, with PROT_READ
 * and MAP_SHARED, maps struct ckpt_control. Any descriptor of the arena will
 * do, also a read-only one.
 */
#define CKPT_CONTROL_OFFSET (1ULL << 60)

/**
 * struct ckpt_control - the arena's control page, which the kernel writes
 * @pending:    1 while a commit is requested: since CKPT_IOC_REQUEST, until the
 *              next commit. One load tells a program whether to make for a safe
 *              point
 * @reserved:   zero
 * @epoch:      the last commit
 * @durable:    highest epoch acknowledged at CKPT_LEVEL_DURABLE, 0 for none
 * @replicated: highest epoch acknowledged at CKPT_LEVEL_REPLICATED, 0 for none
 *
 * Each field is read by one aligned load. The rest of the page is zero.
 */
struct ckpt_control {
	__u32 pending;
	__u32 reserved;
	__u64 epoch;
	__u64 durable;
	__u64 replicated;
};

/**
 * struct ckpt_request - argument of CKPT_IOC_REQUEST
 * @size:  in: sizeof(struct ckpt_request)
 * @flags: in: zero
 * @after: out: the last commit. One of a later epoch answers the request
 *
 * Asks the program for a commit. It sees @pending of its control page, or
 * POLLPRI, and commits at its next safe point, or does not. Requests before the
 * next commit are one. CKPT_IOC_WAIT with @after + 1 and CKPT_LEVEL_COMMITTED
 * waits for the answer.
 *
 * Errors: EBADF (read-only descriptor).
 */
struct ckpt_request {
	__u32 size;
	__u32 flags;
	__u64 after;
};

/* How far an epoch has come. */
#define CKPT_LEVEL_COMMITTED 0	/* closed */
#define CKPT_LEVEL_DURABLE 1	/* a consumer has it on a disk */
#define CKPT_LEVEL_REPLICATED 2 /* a consumer has it on another host */

/**
 * struct ckpt_acknowledge - argument of CKPT_IOC_ACKNOWLEDGE
 * @size:     in: sizeof(struct ckpt_acknowledge)
 * @flags:    in: zero
 * @epoch:    in: the epoch; out: the highest that was acknowledged
 * @level:    in: CKPT_LEVEL_DURABLE or CKPT_LEVEL_REPLICATED
 * @reserved: in: zero
 *
 * Says that a consumer has everything up to @epoch, so that whoever waits for
 * that goes on. An epoch below one that was acknowledged changes nothing. What
 * it takes to be believed is between the program and its consumers: whoever
 * has a writable descriptor may say it.
 *
 * Errors: ERANGE (@epoch is after the last commit), EINVAL, EBADF (read-only
 * descriptor).
 */
struct ckpt_acknowledge {
	__u32 size;
	__u32 flags;
	__u64 epoch;
	__u32 level;
	__u32 reserved;
};

/* That much or more is no limit. */
#define CKPT_WAIT_FOREVER 0x7fffffffffffffffULL

/**
 * struct ckpt_wait - argument of CKPT_IOC_WAIT
 * @size:       in: sizeof(struct ckpt_wait)
 * @flags:      in: zero
 * @epoch:      in: the epoch; out: the highest that has come as far as @level
 * @timeout_ns: in: for how long at most, CKPT_WAIT_FOREVER for no limit; zero
 *              only asks
 * @level:      in: CKPT_LEVEL_*
 * @reserved:   in: zero
 *
 * Waits until @epoch has come as far as @level. Also for an epoch that was not
 * committed yet.
 *
 * Errors: ETIMEDOUT, EINTR (a signal came), EINVAL.
 */
struct ckpt_wait {
	__u32 size;
	__u32 flags;
	__u64 epoch;
	__u64 timeout_ns;
	__u32 level;
	__u32 reserved;
};

/**
 * struct ckpt_subscribe - argument of CKPT_IOC_SUBSCRIBE
 * @size:          in: sizeof(struct ckpt_subscribe)
 * @flags:         in: zero
 * @since:         in: the snapshot will hold the pages stamped after this epoch
 * @reserve_pages: in: how many of its pages may at most be copied aside, zero
 *                 for all of them
 * @snapshot_fd:   out: a descriptor of the snapshot to be, close-on-exec
 * @reserved:      in: zero
 *
 * Asks for a snapshot of the next commit, which the program makes at a safe
 * point of its own choosing, however it does. poll() of the descriptor reports
 * POLLIN when there is the snapshot, and POLLERR when there is none and will be
 * none. Before the commit its commands fail with EAGAIN; afterwards with the
 * reason for which there is none: ENOMEM or EBUSY.
 *
 * Unlike one made by COMMIT such a snapshot never makes a writer wait: when as
 * many pages have been copied aside as @reserve_pages and the memory that may
 * be locked allow, it ends, and its commands fail with ESTALE. What they gave
 * before that stays right. A consumer then subscribes again, with the cursor
 * that it had.
 *
 * Errors: ERANGE (@since is after the last commit), EBUSY (CKPT_SNAPSHOTS_MAX
 * snapshots are open or subscribed to), EBADF (read-only descriptor), EMFILE,
 * ENFILE, ENOMEM.
 */
struct ckpt_subscribe {
	__u32 size;
	__u32 flags;
	__u64 since;
	__u64 reserve_pages;
	__s32 snapshot_fd;
	__u32 reserved;
};

/*
 * Since version 4: an arena that outlives its program, and goes on with another.
 */

/**
 * struct ckpt_keep - argument of CKPT_IOC_KEEP
 * @size:  in: sizeof(struct ckpt_keep)
 * @flags: in: zero
 *
 * Says that this descriptor keeps the arena for a program that is to take it
 * over. CKPT_IOC_INFO and LIST tell CKPT_INFO_KEPT for as long as the descriptor,
 * or a copy of it in any process, is open. Who follows the arena learns so,
 * when its program is gone, whether there may be more to come. Saying it again
 * changes nothing.
 *
 * When the caller is the process that they name, it made the arena for another
 * and is not its program: they name nobody from then on, until one takes it over.
 *
 * Errors: EBADF (read-only descriptor).
 */
struct ckpt_keep {
	__u32 size;
	__u32 flags;
};

/**
 * struct ckpt_takeover - argument of CKPT_IOC_TAKEOVER
 * @size:  in: sizeof(struct ckpt_takeover)
 * @flags: in: zero
 *
 * Makes the calling process the one that CKPT_IOC_INFO and LIST name. The one
 * that they named so far is gone, or it is the caller, for whom only the limit
 * is taken anew. An arena has one program at a time.
 *
 * Allowed to a caller whose effective uid is the uid that created the arena,
 * private or not, and to one with CAP_CHECKPOINT_RESTORE in the creator's user
 * namespace.
 *
 * The arena stays its creator's: the same may open it, and its pages, those
 * charged already and those to come, are charged to the same user. What they
 * are held against from now on is the caller's RLIMIT_MEMLOCK as it is now, or
 * no limit when the caller has CAP_IPC_LOCK; but a caller of another user (real
 * uid) leaves the limit as it was. What is charged stays charged, also where the
 * new limit is below that: then nothing more can be.
 *
 * Errors: EBUSY (the process named so far is there, though it may have ended and
 * not been waited for), EACCES (not allowed), EBADF (read-only descriptor).
 */
struct ckpt_takeover {
	__u32 size;
	__u32 flags;
};

/*
 * ----------------------------------------------------------------------------
 * Commands on a snapshot's descriptor, all since version 2
 *
 * Whoever has the descriptor may use them. The arena lives as long as a
 * descriptor of one of its snapshots. Closing the last descriptor of a snapshot
 * thaws what is still frozen, so a consumer that dies holds nobody up.
 *
 * Of a snapshot that was subscribed to every command can also fail with EAGAIN,
 * ESTALE, ENOMEM or EBUSY, as CKPT_IOC_SUBSCRIBE says.
 * ----------------------------------------------------------------------------
 */

/**
 * struct ckpt_snapshot - argument of CKPT_IOC_SNAPSHOT
 * @size:          in: sizeof(struct ckpt_snapshot)
 * @flags:         in: zero
 * @arena_id:      out: id of the arena
 * @epoch:         out: the commit that the snapshot shows
 * @since:         out: the cursor that it was made for
 * @pages:         out: pages that it was made with
 * @held_pages:    out: pages not thawed yet
 * @copied_pages:  out: those of them that have been copied aside
 * @reserve_pages: out: how many may be
 */
struct ckpt_snapshot {
	__u32 size;
	__u32 flags;
	__u64 arena_id;
	__u64 epoch;
	__u64 since;
	__u64 pages;
	__u64 held_pages;
	__u64 copied_pages;
	__u64 reserve_pages;
};

/*
 * The pages that a call handed over are thawed: the consumer has them. They are
 * not in the snapshot any more.
 */
#define CKPT_GATHER_THAW (1U << 0)

/**
 * struct ckpt_gather - argument of CKPT_IOC_GATHER
 * @size:         in: sizeof(struct ckpt_gather)
 * @flags:        in: CKPT_GATHER_*
 * @start_pgoff:  in: first page of interest, zero to begin; out: where the next
 *                call goes on when @more is 1
 * @ranges:       in: address of an array of struct ckpt_range
 * @buffer:       in: address where the content goes; zero when only the ranges
 *                are wanted, which goes with neither CKPT_GATHER_THAW nor
 *                @buffer_pages
 * @capacity:     in: entries that fit into the array, at least 1
 * @buffer_pages: in: pages that fit into the buffer, at least 1 if there is one
 * @count:        out: entries written: ascending, disjoint, not adjacent
 * @more:         out: 1 when there is more at or after @start_pgoff, else 0
 * @pages:        out: sum of the entries' pages; the content of as many pages,
 *                in the order of the entries and without gaps, is in the buffer
 *
 * Hands over pages as they were at the commit. Calls on one snapshot wait for
 * each other. The buffer must not lie in the arena. When a call fails, no page
 * was thawed.
 *
 * Errors: EINVAL, EFAULT (also: the buffer or the array lies in frozen pages of
 * the arena and nothing is left of the reserve), ENOMEM, EINTR (a fatal signal).
 */
struct ckpt_gather {
	__u32 size;
	__u32 flags;
	__u64 start_pgoff;
	__u64 ranges;
	__u64 buffer;
	__u32 capacity;
	__u32 buffer_pages;
	__u32 count;
	__u32 more;
	__u64 pages;
};

/**
 * struct ckpt_thaw - argument of CKPT_IOC_THAW
 * @size:  in: sizeof(struct ckpt_thaw)
 * @flags: in: zero
 * @pgoff: in: first page
 * @pages: in: number of pages, above zero; the range may go beyond the arena
 *
 * Takes the pages of a range out of the snapshot, as far as they are in it.
 *
 * Errors: EINVAL, EINTR (a fatal signal).
 */
struct ckpt_thaw {
	__u32 size;
	__u32 flags;
	__u64 pgoff;
	__u64 pages;
};

/* On /dev/ckpt. */
#define CKPT_IOC_VERSION _IOWR(CKPT_IOC_MAGIC, 0x00, struct ckpt_version)
#define CKPT_IOC_CREATE _IOWR(CKPT_IOC_MAGIC, 0x01, struct ckpt_create)
#define CKPT_IOC_OPEN _IOWR(CKPT_IOC_MAGIC, 0x02, struct ckpt_open)
#define CKPT_IOC_LIST _IOWR(CKPT_IOC_MAGIC, 0x03, struct ckpt_list)

/* On an arena's descriptor. */
#define CKPT_IOC_INFO _IOWR(CKPT_IOC_MAGIC, 0x20, struct ckpt_info)
#define CKPT_IOC_RESERVE _IOWR(CKPT_IOC_MAGIC, 0x21, struct ckpt_reserve)
#define CKPT_IOC_COMMIT _IOWR(CKPT_IOC_MAGIC, 0x22, struct ckpt_commit)
#define CKPT_IOC_DELTA _IOWR(CKPT_IOC_MAGIC, 0x23, struct ckpt_delta)
#define CKPT_IOC_STATS _IOWR(CKPT_IOC_MAGIC, 0x24, struct ckpt_stats)
#define CKPT_IOC_REQUEST _IOWR(CKPT_IOC_MAGIC, 0x25, struct ckpt_request)
#define CKPT_IOC_ACKNOWLEDGE _IOWR(CKPT_IOC_MAGIC, 0x26, struct ckpt_acknowledge)
#define CKPT_IOC_WAIT _IOWR(CKPT_IOC_MAGIC, 0x27, struct ckpt_wait)
#define CKPT_IOC_SUBSCRIBE _IOWR(CKPT_IOC_MAGIC, 0x28, struct ckpt_subscribe)
#define CKPT_IOC_KEEP _IOWR(CKPT_IOC_MAGIC, 0x29, struct ckpt_keep)
#define CKPT_IOC_TAKEOVER _IOWR(CKPT_IOC_MAGIC, 0x2a, struct ckpt_takeover)

/* On a snapshot's descriptor. */
#define CKPT_IOC_SNAPSHOT _IOWR(CKPT_IOC_MAGIC, 0x40, struct ckpt_snapshot)
#define CKPT_IOC_GATHER _IOWR(CKPT_IOC_MAGIC, 0x41, struct ckpt_gather)
#define CKPT_IOC_THAW _IOWR(CKPT_IOC_MAGIC, 0x42, struct ckpt_thaw)

#endif /* _UAPI_LINUX_CKPT_H */
