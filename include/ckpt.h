/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * libckpt: memory that remembers what changed.
 *
 * A program keeps its state in an *arena*, and *commits* when that state makes sense. The pages
 * that changed since the commit before are saved to a *chain*, a folder, while the program goes
 * on. When it starts again, ckpt_open() restores the newest commit that is *durable*: the same
 * bytes at the same addresses.
 *
 *     struct ckpt_options options = CKPT_OPTIONS_INIT;
 *     options.dir = "state";
 *     ckpt_t *ctx;
 *     if (ckpt_open(&options, &ctx) < 0)
 *             errx(1, "%s", ckpt_errmsg(NULL));
 *     struct counter *counter = ckpt_root(ctx);
 *     if (!counter) {
 *             counter = ckpt_calloc(ctx, 1, sizeof *counter);
 *             ckpt_set_root(ctx, counter);
 *     }
 *     for (;;) {
 *             counter->value++;
 *             ckpt_commit(ctx, NULL);
 *             if (counter->value % 1000 == 0 && ckpt_wait(ctx, 0, -1) == 0)
 *                     printf("%ld is safe\n", counter->value);
 *     }
 *
 * Start it with `ckptctl run -- ./program`, which gives it the same memory layout each time.
 *
 * WHAT SURVIVES
 *   What is in the arena: regions and what ckpt_malloc() gave. Pointers from the arena into
 *   the arena are good after a restore. Pointers from the arena to code or to global data are
 *   good only in the same executable at the same address; a restore anywhere else is refused,
 *   unless CKPT_NO_CODE_POINTERS says that there are none. Files, sockets, threads, the stack
 *   and the ordinary heap do not survive: the program makes them again.
 *
 * DURABLE
 *   ckpt_commit() returns when the epoch is closed: from then on the program may change its
 *   state, and what it had at that moment is saved by a thread of the library's. The epoch is
 *   durable when that is done, a little later: it survives a crash and a power cut then, and not
 *   before. What must not be said before it is safe waits for it: ckpt_wait(), ckpt_output_hold(), a
 *   hook CKPT_AFTER_COMMIT, or ckpt_commit_sync() in place of ckpt_commit(). An epoch that was not
 *   durable when the program died was never there, and its number is given again.
 *
 *   Up to CKPT_IN_FLIGHT_MAX commits can be on their way to the disk. A program that commits
 *   faster than the disk can take it is held up in ckpt_commit() until there are fewer.
 *
 *   When a commit cannot be saved, because the disk is full, say, those that are on their way
 *   behind it are given up as well: each builds on the one before. ckpt_wait() returns why. Nothing
 *   is lost as long as the program runs: the next ckpt_commit() takes everything since the last
 *   durable epoch and waits for it, so its result tells whether the disk is still full; when it
 *   returns 0, all is as if nothing had happened.
 *
 *   CKPT_COMMIT=sync in the environment, or CKPT_SYNC, make every ckpt_commit() wait. So does
 *   the lack of what the background needs (a module that can make snapshots, memory within
 *   RLIMIT_MEMLOCK for what is on its way, a thread): the library says so once on stderr.
 *
 * SAFE
 *   An epoch is safe when it is durable; with CKPT_WAIT_FOR=replicated in the environment, which
 *   `ckptctl run --replicate-to … --wait-for replicated` sets, or ckpt_options.wait_for, when it is
 *   on the disks of all spares as well: other hosts that can go on with the program when this one is
 *   gone. What waits until an epoch is durable, by ckpt_wait() or as an output, waits until
 *   it is safe. While a spare is away that takes as long as it is away; commits are made all the
 *   same. Hooks CKPT_AFTER_COMMIT, ckpt_durable() and ckpt_commit_sync() are about this host's disk
 *   alone.
 *
 * COMPACTION
 *   A chain grows with every commit. Whenever a segment of it is full (256 MiB), a thread of the library's
 *   looks whether the full ones have more than 4 times the bytes that the newest epoch needs, and if
 *   so puts one file in their place that has what the newest 10 epochs, and those in the segment
 *   that is being written, need. Older epochs are gone then. ckpt_options.compact, or CKPT_COMPACT in
 *   the environment, is another number, or "off": then all epochs stay, until `ckptctl compact`
 *   drops some. Commits go on meanwhile. If it fails, for want of room, say, the library tells once
 *   on stderr, and nothing is lost.
 *
 * RETURN VALUES
 *   Functions that return int return 0, or a negative error number: the negative of one of
 *   errno.h's, as documented at each. Functions that return a pointer return NULL and leave
 *   the number in ckpt_error(). ckpt_errmsg() tells what happened and what to do about it.
 *   Every function may be called with NULL or with a context that was closed: -EINVAL, or the
 *   function's neutral value. -EFAULT from any of them is a bug in the library: its text is
 *   worth a report, the chain is whole up to the last commit.
 *
 * STRUCTURES
 *   The first field is the structure's size as the program knows it. A program built for a later
 *   version works as long as it asks for nothing that this version does not know: what is behind
 *   the known fields must be zero in what it gives, else it gets -E2BIG, and is zeroed in what
 *   it gets back. A size below this version's is -EINVAL.
 *
 * THREADS
 *   A context may be used from any thread. ckpt_malloc() and its kin may run at the same time
 *   as each other. ckpt_commit() takes the arena as it is: the program sees to it that no
 *   other thread writes to the arena between its call and its return; ckpt_enter() and ckpt_leave()
 *   are a way to. A write at that time
 *   damages nothing, but it may be half in the commit; the next commit has all of it. What is
 *   written after its return is not in it. Calls that change the context itself (open, close,
 *   region, grow, hook, commit, rollback) take turns, and ckpt_malloc() and its kin wait for a
 *   synchronous commit. A hook may call any function but ckpt_commit(), ckpt_commit_sync(),
 *   ckpt_rollback(), ckpt_wait(), ckpt_close() and ckpt_hook(), in the thread that it runs in. No
 *   function may be called from a signal handler.
 *
 *   The library's own thread, "ckpt-save", is started by the first commit that needs it; to save
 *   a large commit there are others, "ckpt-pack", while that takes, and ckpt_open() restores with
 *   the help of "ckpt-restore", and "ckpt-compact" sees to it that the chain stays small. All signals but those that a thread brings upon itself are blocked
 *   in them.
 *
 * FORK
 *   A child does not have the arena: touching it is SIGSEGV. The child must not use the
 *   context; every function refuses with -EPERM there, or its neutral value. It may open a
 *   context of its own. It keeps the parent's chain locked until it ends or executes another
 *   program: a parent that is started again meanwhile gets -EBUSY. The thread that saves is the
 *   parent's alone: what is on its way when a child is forked is saved by the parent, once.
 */
#ifndef CKPT_H
#define CKPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CKPT_VERSION_MAJOR 0
#define CKPT_VERSION_MINOR 1
#define CKPT_VERSION_PATCH 0

/* An open context: one arena and one chain. */
typedef struct ckpt ckpt_t;

/* The state holds no pointers to code or to global data. ckpt_options.flags */
#define CKPT_NO_CODE_POINTERS (1u << 0)
/* Begin anew even if the chain has commits; they stay in it. ckpt_options.flags */
#define CKPT_FRESH (1u << 1)
/* ckpt_commit() returns when the epoch is durable, as ckpt_commit_sync(). ckpt_options.flags */
#define CKPT_SYNC (1u << 2)
/*
 * Store every page that was written, even if the chain has its content already. Without this it is
 * not stored again, which takes up to 48 bytes of memory for a page. ckpt_options.flags
 */
#define CKPT_NO_SHARING (1u << 3)

/* Commits that can be on their way to the disk at the same time. */
#define CKPT_IN_FLIGHT_MAX 4

/* When a hook runs. */
#define CKPT_BEFORE_COMMIT 1 /* before the epoch is closed; non-zero refuses the commit */
#define CKPT_AFTER_COMMIT 2  /* the epoch is durable */
#define CKPT_AFTER_RESTORE 3 /* in ckpt_open() and ckpt_rollback(), the state is back */
#define CKPT_AFTER_TAKEOVER 4 /* in ckpt_open(), behind it, when a spare goes on with the state */

/*
 * A hook. epoch: the one that will be committed (or the one behind it, when the first try runs
 * out of memory), the one that is durable, or the one that was restored or taken over with. Returns 0,
 * or an error number, positive or negative, that makes the call it runs in fail with -ECANCELED;
 * the result of CKPT_AFTER_COMMIT is ignored, and a rollback has happened all the same. It must return: no longjmp(), no C++ exception.
 *
 * CKPT_AFTER_COMMIT runs in the library's own thread while the program goes on, unless the
 * commit was synchronous. The state may have changed since that epoch: what the hook needs
 * to know of it is noted by CKPT_BEFORE_COMMIT, outside of the arena. Epochs come in ascending
 * order, one at a time; those that could not be saved are left out, the next one has what they
 * had. ckpt_wait() and ckpt_close() return behind the hooks.
 *
 * CKPT_AFTER_TAKEOVER runs once, in the first start on a host that was a spare and takes over:
 * there the program may want to take an address, or tell others where it is now. A later start on
 * that host is a restart like any other. It is over when ckpt_open() returns, so it is given as
 * ckpt_options.after_takeover and refused by ckpt_hook().
 */
typedef int ckpt_hook_fn(ckpt_t *ctx, uint64_t epoch, void *user);

/*
 * How to open. Begin with CKPT_OPTIONS_INIT; zero and NULL ask for what stands behind.
 */
struct ckpt_options {
	size_t size;            /* sizeof(struct ckpt_options) */
	const char *dir;        /* the chain's folder, made if it is not there: $CKPT_STORE */
	const char *name;       /* for people, 1 to 63 printable characters: the program's name */
	uint64_t arena_bytes;   /* address space to reserve: 64 GiB, or what the chain says */
	uint64_t base;          /* its address: 0x200000000000, or what the chain says */
	uint64_t restore_epoch; /* epoch to restore: $CKPT_RESTORE_EPOCH, or the newest */
	uint32_t flags;         /* CKPT_NO_CODE_POINTERS, CKPT_FRESH, CKPT_SYNC, CKPT_NO_SHARING */
	uint32_t pack_threads;  /* that compress beside the one that saves: processors less one, 4 at most */
	ckpt_hook_fn *after_restore; /* run at the end of ckpt_open() if it restored */
	void *after_restore_user;
	const char *compress;   /* "lz4", "zstd", "zstd:1" to "zstd:19", "none": $CKPT_COMPRESS, or lz4 */
	const char *compact;    /* "off", or "2" to "1000", see COMPACTION: $CKPT_COMPACT, or 4 */
	ckpt_hook_fn *after_takeover; /* run behind after_restore if a spare took over */
	void *after_takeover_user;
	const char *wait_for;   /* "durable", "replicated", see SAFE: $CKPT_WAIT_FOR, or durable */
};

#define CKPT_OPTIONS_INIT { sizeof(struct ckpt_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/*
 * Opens a chain and makes an arena. If the chain has commits, one of them is restored. options
 * may be NULL, for the defaults. On success *ctx is the context, else NULL.
 *
 *   -EINVAL      bad options, or no folder given anywhere
 *   -EBUSY       another program writes to the chain
 *   -ENOENT      the epoch asked for is not in the chain
 *   -ENOTEMPTY   the folder has other things in it and no chain
 *   -EBADMSG     the chain is damaged; nothing was restored. `ckptctl verify` tells more
 *   -EPROTONOSUPPORT  the chain is of a version that this library does not know
 *   -ENOEXEC     the chain was written by another executable, or at other addresses
 *   -EADDRINUSE  the arena's addresses are taken; start under `ckptctl run`
 *   -ENOMEM      no memory, or RLIMIT_MEMLOCK is too low
 *   -ENODEV      CKPT_TRACKER=module and there is no /dev/ckpt
 *   -ECANCELED   the hook after_restore or after_takeover refused; the chain has the restore, and
 *                is closed
 *   -EACCES      no permission for the folder or the device
 *   -EIO, -ENOSPC and what else the file system says
 */
int ckpt_open(const struct ckpt_options *options, ckpt_t **ctx);

/*
 * Closes a context, once what was committed is durable and calls of other threads with it have
 * returned; calls that begin then get -EINVAL. The arena's memory is gone with it; the chain
 * stays. What was not committed is lost, and so is what a program that ends without this call has
 * on its way. -EINVAL if it is not open, -EDEADLK from a hook. Any other error says why the last
 * commit is not durable: the context is closed all the same, and the chain has everything up to
 * the last durable epoch.
 */
int ckpt_close(ckpt_t *ctx);

/*
 * Finds or makes a region: a named run of pages of the arena, at an address that never
 * changes. len is its size in bytes now, reserve the address space kept for it to grow into
 * (0: as much as len); both are rounded up to pages. type is the program's own. *addr is its
 * address. A new region is zeroed.
 *
 * A region that exists, from this run or by restore, is found by its name. Its type must be
 * the same (-EEXIST if not). If it is shorter than len it grows, as by ckpt_region_grow(); if
 * it is longer it stays so.
 *
 *   -EINVAL  bad name (1 to 47 printable characters), len 0, reserve below len
 *   -ENOSPC  the arena has no address space left, or no place for another region (512)
 *   -ENOMEM  RLIMIT_MEMLOCK is too low
 *   -EEXIST  there is one of another type
 */
int ckpt_region(ckpt_t *ctx, const char *name, uint32_t type, size_t len, size_t reserve,
		void **addr);

/*
 * Makes a region at least len bytes long. It keeps its address; what is new is zeroed. A region
 * never shrinks. -ENOENT if there is none of that name, -ENOSPC beyond its reserve, -ENOMEM.
 */
int ckpt_region_grow(ckpt_t *ctx, const char *name, size_t len);

/* Length of a region in bytes, 0 if there is none. */
size_t ckpt_region_len(ckpt_t *ctx, const char *name);

/*
 * Adopts memory that the program has already: it becomes a region, at the address that it has, and is
 * saved and rolled back from now on as all of the arena is. Whole pages, aligned, outside of the
 * arena's addresses, of private memory without a file: a static array that is zero to begin with,
 * what mmap() or an allocator gave. type is the program's own.
 *
 *     static alignas(4096) struct table table;
 *
 *     int found = ckpt_adopt(ctx, "table", 1, &table, sizeof table);
 *     if (found == 0)
 *             first_start(&table);
 *
 *   0  it is a new region, with the content that it had
 *   1  there was one of this name, type, address and length, from this run or by restore: the
 *      memory has the region's content now, and what it had before is dropped
 *
 * ckpt_open() cannot know whether the program has the memory already, so it restores the content
 * and this call brings it to the address. Until it is made the memory is not what it was, and
 * pointers to it from elsewhere in the arena lead nowhere. Call it early, with all that the state
 * points to; ckptctl run gives the program the same addresses each time. A mapping of the
 * program's own wants a fixed address (MAP_FIXED_NOREPLACE).
 *
 * As long as the context is open the memory stays mapped as it is: no munmap(), mremap() or free().
 * mprotect() is fine for pages that nobody writes meanwhile, if they stay readable. A child does
 * not have it, as it does not have the arena. ckpt_close() makes it ordinary memory again, with
 * the content that it has then.
 *
 * Going back to an epoch takes adopted memory along. One that it was no part of then is the
 * program's again and keeps its content; one that it is no part of now comes back by adopting it.
 *
 * The call waits until all threads are out, and holds those that enter (ckpt_enter()). A program
 * that does not use that sees to it that no thread uses the memory during the call: a write at that
 * time may be lost. It may be made from hooks, but CKPT_AFTER_COMMIT.
 *
 * When it fails the memory is as it was.
 *
 *   -EINVAL      not whole pages, nothing mapped there, bad name
 *   -EEXIST      the region of this name has another type, address or length
 *   -EADDRINUSE  it overlaps the arena, or another region that was adopted
 *   -EOPNOTSUPP  memory of another kind: of a file, shared, locked, of huge pages, with a
 *                protection key, a stack, watched by a userfaultfd, not writable, or executable
 *   -ENOSPC      the arena has no address space left, or no place for another region (512)
 *   -ENOMEM      no memory, or RLIMIT_MEMLOCK is too low. The module keeps the pages: for a moment
 *                it takes the memory twice
 *   -EDEADLK     called by a thread that has entered, or from a hook CKPT_AFTER_COMMIT
 */
int ckpt_adopt(ckpt_t *ctx, const char *name, uint32_t type, void *addr, size_t len);

/*
 * Memory of the arena, as malloc(3) and its kin give it, aligned to 16 bytes. The allocator's
 * whole state is in the arena, so what was allocated is still allocated after a restore. It
 * lives in the region "heap", which grows as needed, up to half of the arena. NULL when there
 * is no more (-ENOMEM), or when size is 0 (-EINVAL). ckpt_free() ignores NULL; freeing what was
 * not allocated here, or is free already, is undefined as with free(3), but mostly noticed:
 * nothing is done then and ckpt_error() is -EINVAL.
 *
 * ckpt_realloc() takes NULL for a new block, and frees when size is 0. The alignment of
 * ckpt_aligned_alloc() is a power of two; size may be any.
 */
void *ckpt_malloc(ckpt_t *ctx, size_t size);
void *ckpt_calloc(ckpt_t *ctx, size_t count, size_t size);
void *ckpt_realloc(ckpt_t *ctx, void *ptr, size_t size);
void *ckpt_aligned_alloc(ckpt_t *ctx, size_t align, size_t size);
void ckpt_free(ckpt_t *ctx, void *ptr);

/*
 * The root: one pointer by which a restored program finds its state. It is saved with the
 * arena. NULL before it was set. -EINVAL if the pointer is neither NULL nor in the arena.
 */
int ckpt_set_root(ckpt_t *ctx, void *root);
void *ckpt_root(ckpt_t *ctx);

/* What a commit did. */
struct ckpt_commit_info {
	size_t size;            /* sizeof(struct ckpt_commit_info), set by the caller */
	uint64_t epoch;         /* the epoch */
	uint64_t pages;         /* pages saved, or to be saved */
	uint64_t stored_bytes;  /* bytes the chain grew by, 0 when that is not known yet */
	uint64_t pause_ns;      /* time the kernel held writers up */
	uint64_t total_ns;      /* time the call took, from the first hook on */
};

/*
 * Commits: closes the epoch. What changed is saved while the program goes on, see DURABLE above;
 * ckpt_wait() waits for it. info may be NULL.
 *
 * When it fails the program goes on as if it had not been called: nothing is lost, what changed
 * is saved by the next commit that succeeds.
 *
 *   -ECANCELED  a hook refused
 *   -ENOSPC     the disk is full: this commit, or one before it that it builds on, could not be
 *               saved
 *   -EIO and what else the file system says, likewise
 *   -EDEADLK    called from a hook
 */
int ckpt_commit(ckpt_t *ctx, struct ckpt_commit_info *info);

/*
 * Commits, and returns when the epoch is durable, as does ckpt_commit() with CKPT_SYNC. The pages
 * are read from the arena during the call, so threads of the program wait for the disk, too.
 * Errors as with ckpt_commit().
 */
int ckpt_commit_sync(ckpt_t *ctx, struct ckpt_commit_info *info);

/*
 * Waits until an epoch is durable: one that ckpt_commit() told, or 0 for that of the last commit;
 * with wait_for "replicated" until it is on all spares as well, see SAFE.
 * Waits for timeout_ms milliseconds at most; 0 only looks, a negative number waits as long as it
 * takes. An epoch that was given up counts as durable as soon as a later one is.
 *
 *   0           it is safe, and hooks CKPT_AFTER_COMMIT have run; also if nothing was committed
 *   -ETIMEDOUT  it is not yet
 *   -ENOSPC, -EIO and what else the file system says: it could not be saved. The next commit
 *               tries again, see DURABLE above
 *   -EINVAL     it was not committed yet
 *   -EDEADLK    called from a hook
 */
int ckpt_wait(ckpt_t *ctx, uint64_t epoch, int timeout_ms);

/*
 * Enters the state: between ckpt_enter() and ckpt_leave() the calling thread works on it, and no
 * commit closes an epoch. ckpt_commit() waits until all threads are out and holds those that enter
 * until the epoch is closed (a synchronous one until it is saved), so what it takes is what threads
 * had when they left. A thread may enter again while it is inside, and leaves as often. Both
 * calls are cheap: no system call, and nothing that threads share is written, unless a commit is at
 * work.
 *
 * Who is inside must not wait for somebody who wants to enter: not for another thread's message,
 * nor for a lock that is held by a thread when it enters. Commit from outside: it is -EDEADLK inside,
 * as are all calls that make one. A thread that ends has left. Calls are per thread: what one
 * has entered another cannot leave.
 *
 * In a hook CKPT_BEFORE_COMMIT all others are out, and entering is allowed and does nothing; a hook
 * CKPT_AFTER_COMMIT cannot enter, as a commit may wait for it: -EDEADLK. A program that uses neither
 * call sees to it by other means that no thread writes during a commit (see THREADS).
 *
 *   -EINVAL   ctx is not open; ckpt_leave() of a thread that is not inside
 */
int ckpt_enter(ckpt_t *ctx);
int ckpt_leave(ckpt_t *ctx);

/*
 * Goes back to a durable epoch, 0 for the last one, while the program runs: the whole arena is as
 * it was then, regions, heap and root with it. Only pages that changed since are touched. For an
 * undo, or for a program that found its state damaged: nothing in the arena is relied on.
 *
 * First waits until nothing is on its way and all threads are out, see ckpt_enter(), and holds
 * those that enter; no other thread may use the arena until it returns. What the program keeps
 * elsewhere of the later state, such as pointers to what was allocated since, is void. Hooks
 * CKPT_AFTER_RESTORE run with the epoch gone back to; the state gets a new generation and the
 * next epoch's number, and commits go on behind that. The epochs in between stay in the chain and
 * can be gone back to as well. Outputs that wait for what is not durable are lost, and
 * ckpt_wait() for it gives -ECANCELED.
 *
 * Nothing has changed after:
 *   -ENOENT      the epoch is not in the chain
 *   -EBADMSG     what it needs of the chain is damaged
 *   -EINVAL      nothing was committed, or the epoch is of an arena at another place
 *   -ENOEXEC     the epoch was written by another executable, or at other addresses
 *   -ENOMEM      RLIMIT_MEMLOCK is too low
 *   -EDEADLK     called from a hook, or inside ckpt_enter() and ckpt_leave()
 *
 *   -ENOTRECOVERABLE  it broke off halfway: the memory is undefined, and every function that has
 *                to do with it says so until another ckpt_rollback() succeeds or the context is
 *                closed
 *
 * It has happened after:
 *   -ECANCELED   a hook is not content with it
 *   -ENOSPC, -EIO and what else the file system says: that it has happened is not in the chain
 *                yet; the next commit that succeeds brings it there
 */
int ckpt_rollback(ckpt_t *ctx, uint64_t epoch);

/*
 * A sign of life, for `ckptctl run --watchdog TIME`: a program that neither commits nor calls this
 * for so long is taken for dead, and started again from its last durable commit. Costs a look at
 * the clock, and nothing without a watchdog. Only the first context of a program is looked at, from
 * when it is open until it is closed.
 *
 *   -EINVAL   ctx is not open
 */
int ckpt_alive(ckpt_t *ctx);

/*
 * OUTPUT COMMIT
 *
 * What a program says depends on state: a reply to a client, a line on a terminal, an order to a
 * machine. When the program dies before that state is durable, it goes on from an earlier one and
 * knows nothing of what it said. So it gives its outputs to these functions, which give them
 * back when they are safe:
 *
 *     ckpt_outputs_t *outputs;
 *     ckpt_output_open(ctx, 1000, &outputs);
 *     ...
 *     change the state;
 *     ckpt_output_hold(outputs, 0, reply);
 *     ...
 *     ckpt_commit(ctx, NULL);
 *     ...
 *     while (ckpt_output_next(outputs, 0, &reply) == 0)
 *             send(reply);
 *
 * An output is a pointer that the library only keeps. An event loop waits for ckpt_output_fd()
 * among its other descriptors; a program with threads has one that waits in ckpt_output_next().
 *
 * ORDER
 *   Outputs come back in the order in which they were given, each when what it depends on, and what
 *   those before it depend on, is safe and hooks CKPT_AFTER_COMMIT have run: when ckpt_wait()
 *   would return 0. A commit that fails loses none: they are safe with the next one that does not.
 *   A spare that is away loses none: with wait_for "replicated" they come when it is back.
 *
 * THREADS
 *   Any function may be called from any thread, and from hooks; only a ckpt_output_next() that
 *   would wait is refused there. When several threads take outputs, each gets other ones.
 */
typedef struct ckpt_outputs ckpt_outputs_t;

/*
 * Makes a place for outputs of this context, limit at most, those that are released and not
 * taken among them. A context may have several, each with an order of its own. On success
 * *outputs is the place, else NULL.
 *
 *   -EINVAL  outputs is NULL, or limit 0
 *   -EMFILE, -ENFILE  no descriptor for it
 */
int ckpt_output_open(ckpt_t *ctx, size_t limit, ckpt_outputs_t **outputs);

/*
 * Holds an output until an epoch is durable, with wait_for "replicated" until it is on all spares as
 * well: one that ckpt_commit() told, or 0 for the next one.
 *
 * With 0 it depends on all that the calling thread has written so far, committed or not. It is
 * safe with the first commit that begins after this call and becomes safe. One that another
 * thread is making at this moment may be too early to have what was written, and does not count.
 *
 *   -EAGAIN     there are as many as the limit allows. It does not wait for room, as who holds
 *               an output often is the one who would make it: commit, or take what is released
 *   -EINVAL     the epoch was not committed yet
 *   -ESHUTDOWN  the context was closed
 */
int ckpt_output_hold(ckpt_outputs_t *outputs, uint64_t epoch, void *output);

/*
 * Takes the next output that is released into *output. Waits for timeout_ms milliseconds at most;
 * 0 only looks, a negative number waits as long as it takes.
 *
 *   0           it is safe
 *   -ECANCELED  it is not, and will never be: the context was closed before it was durable, or the
 *               state that it depends on was taken back. *output is set, so that it can be freed
 *   -ETIMEDOUT  there is none yet; *output is NULL, as in what follows
 *   -ESHUTDOWN  there is none, and as the context was closed, there will be none
 *   -EDEADLK    called from a hook, with a timeout other than 0
 */
int ckpt_output_next(ckpt_outputs_t *outputs, int timeout_ms, void **output);

/*
 * A descriptor for poll(2), select(2) and epoll(7): readable as long as ckpt_output_next() would
 * not wait. It belongs to the library and is closed by ckpt_output_close(); it must not be read.
 * A negative error number if outputs is not open.
 */
int ckpt_output_fd(ckpt_outputs_t *outputs);

/*
 * Closes a place for outputs; threads that wait there get -ESHUTDOWN. What is left in it is
 * forgotten: to have all of it, close the context first, which makes the rest safe or lost, and
 * take it. -EINVAL if it is not open.
 */
int ckpt_output_close(ckpt_outputs_t *outputs);

/* What commits have done and cost since the context was opened. */
struct ckpt_commit_stats {
	size_t size;              /* sizeof(struct ckpt_commit_stats), set by the caller */
	uint64_t commits;         /* epochs closed */
	uint64_t saved;           /* of these, durable with a record of their own */
	uint64_t given_up;        /* of these, not saved; a later one has what they had */
	uint64_t fallbacks;       /* synchronous because there could be no snapshot */
	uint64_t in_flight;       /* on their way now */
	uint64_t queue_waits;     /* commits that waited because too many were on their way */
	uint64_t queue_wait_ns;   /* how long, all together */
	uint64_t pause_ns;        /* time that commits held writers up, all together */
	uint64_t pause_ns_max;    /* the longest */
	uint64_t pause_ns_last;   /* the last */
	uint64_t durable_ns;      /* from closing an epoch until it was durable, all together */
	uint64_t durable_ns_max;  /* the longest */
	uint64_t durable_ns_last; /* the last */
	uint64_t pages;           /* pages saved, those among them that needed not be stored */
	uint64_t stored_bytes;    /* bytes the chain grew by */
	uint64_t copied_pages;    /* pages copied aside because they were written before they were saved */
	uint64_t writer_waits;    /* times that a writer had to wait until its page was saved */
	uint64_t unchanged_pages; /* pages that were written, but had their content already */
	uint64_t shared_pages;    /* pages like others that are stored */
};

/* Tells what commits have done and cost. -EINVAL if stats is NULL or of the wrong size. */
int ckpt_stats(ckpt_t *ctx, struct ckpt_commit_stats *stats);

/* 1 if ckpt_open() restored a commit, else 0. */
int ckpt_is_restored(ckpt_t *ctx);

/* The epoch that ckpt_open() restored, 0 if none. */
uint64_t ckpt_restored_epoch(ckpt_t *ctx);

/*
 * The epoch of the last commit, durable or on its way to be, 0 before any. One that could not be
 * saved does not count.
 */
uint64_t ckpt_epoch(ckpt_t *ctx);

/* The last durable epoch, 0 before any. */
uint64_t ckpt_durable(ckpt_t *ctx);

/*
 * The last epoch that is safe, for which ckpt_wait() would not wait, 0 before any: the last durable
 * one, with wait_for "replicated" the last durable one that is on all spares as well.
 */
uint64_t ckpt_safe(ckpt_t *ctx);

/*
 * The term in which this program took over from one on another host, 0 if it was not started for
 * that. Terms grow with every change of the host that runs the program: a receiver of outputs that
 * is told them can refuse those of a host that does not any more.
 */
uint64_t ckpt_takeover_term(ckpt_t *ctx);

/*
 * 1 while somebody outside asks for a commit (`ckptctl commit`, `ckptctl pull`), else 0. A program
 * that looks here at its safe points, and commits when it is asked, answers him.
 */
int ckpt_pending(ckpt_t *ctx);

/*
 * The word behind it, for loops in which a call would cost too much: it is not zero then. Read it
 * through the pointer each time, which is one load. Valid until ckpt_close(). NULL if ctx is not
 * open.
 */
const volatile uint32_t *ckpt_pending_word(ckpt_t *ctx);

/*
 * The generation: 16 random bytes made anew by each start, restore or not, and each rollback. A
 * program that hands out tokens can tell by it that it was restored in between.
 */
int ckpt_generation(ckpt_t *ctx, uint8_t generation[16]);

/*
 * Registers a hook, for the commits that begin from now on. Hooks of one kind run in the order in
 * which they were registered, those after a commit in reverse. -EINVAL for an unknown kind, and for
 * CKPT_AFTER_TAKEOVER.
 */
int ckpt_hook(ckpt_t *ctx, int when, ckpt_hook_fn *hook, void *user);

/* The tracker in use: "module", "pagemap" or "compare"; "" if ctx is not open. */
const char *ckpt_tracker(ckpt_t *ctx);

/*
 * The error number of the last call of this thread that failed, negative; 0 if none did.
 */
int ckpt_error(void);

/*
 * What the last failed call of this thread ran into and what to do about it. Never NULL; valid
 * until the thread's next failing call. ctx is not used and may be NULL.
 */
const char *ckpt_errmsg(ckpt_t *ctx);

/* The name of an error number of this library, such as "EBADMSG: the chain is damaged". */
const char *ckpt_strerror(int error);

/* The version of the library, such as "0.1.0". */
const char *ckpt_version(void);

#ifdef __cplusplus
}
#endif

#endif /* CKPT_H */
