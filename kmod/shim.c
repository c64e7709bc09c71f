// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Rust cannot call: inline functions and macros, wrapped one by one. No logic.
 */
#include <linux/atomic.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>

/* Called from Rust alone, so nobody declares them. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-declarations"

/* mm/folio.rs */

struct folio *ckpt_folio_alloc(void)
{
	return folio_alloc(GFP_HIGHUSER | __GFP_ZERO | __GFP_ACCOUNT, 0);
}

void ckpt_folio_set_index(struct folio *folio, pgoff_t index)
{
	folio->index = index;
}

void ckpt_folio_set_mapping(struct folio *folio, struct address_space *mapping)
{
	WRITE_ONCE(folio->mapping, mapping);
}

pgoff_t ckpt_folio_index(struct folio *folio)
{
	return folio->index;
}

struct page *ckpt_folio_page(struct folio *folio)
{
	return folio_page(folio, 0);
}

void ckpt_folio_lock(struct folio *folio)
{
	folio_lock(folio);
}

void ckpt_folio_put(struct folio *folio)
{
	folio_put(folio);
}

bool ckpt_folio_maybe_dma_pinned(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio);
}

unsigned long ckpt_folio_pfn(struct folio *folio)
{
	return folio_pfn(folio);
}

/* mm/file.rs */

struct inode *ckpt_file_inode(struct file *file)
{
	return file_inode(file);
}

void ckpt_inode_set_size(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

loff_t ckpt_inode_size(struct inode *inode)
{
	return i_size_read(inode);
}

void ckpt_file_allow_positions(struct file *file)
{
	file->f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE;
}

bool ckpt_file_writable(const struct file *file)
{
	return file->f_mode & FMODE_WRITE;
}

/* mm/barrier.rs */

void ckpt_rwsem_init(struct rw_semaphore *sem)
{
	init_rwsem(sem);
}

/* mm/owner.rs */

struct user_struct *ckpt_current_user_get(void)
{
	return get_uid(current_user());
}

long ckpt_locked_vm_read(struct user_struct *user)
{
	return atomic_long_read(&user->locked_vm);
}

bool ckpt_locked_vm_try_cmpxchg(struct user_struct *user, long *old, long new)
{
	return atomic_long_try_cmpxchg(&user->locked_vm, old, new);
}

void ckpt_locked_vm_sub(struct user_struct *user, long pages)
{
	atomic_long_sub(pages, &user->locked_vm);
}

unsigned long ckpt_rlimit_memlock(void)
{
	return rlimit(RLIMIT_MEMLOCK);
}

struct pid *ckpt_current_tgid_get(void)
{
	return get_pid(task_tgid(current));
}

bool ckpt_pid_has_process(struct pid *pid)
{
	return pid_has_task(pid, PIDTYPE_TGID);
}

const struct cred *ckpt_current_cred_get(void)
{
	return get_current_cred();
}

bool ckpt_cred_ns_capable(const struct cred *cred, int cap)
{
	return ns_capable(cred->user_ns, cap);
}

void ckpt_cond_resched(void)
{
	cond_resched();
}
