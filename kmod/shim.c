// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Rust cannot call: inline functions and macros, wrapped one by one. No logic.
 */
#include <linux/atomic.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/wait.h>

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

void ckpt_rwsem_init(struct rw_semaphore *sem, const char *name, struct lock_class_key *class)
{
	__init_rwsem(sem, name, class);
}

/* mm/direct.rs */

struct mm_struct *ckpt_current_mm(void)
{
	return current->mm;
}

int ckpt_mmap_read_lock_killable(struct mm_struct *mm)
{
	return mmap_read_lock_killable(mm);
}

void ckpt_mmap_read_unlock(struct mm_struct *mm)
{
	mmap_read_unlock(mm);
}

bool ckpt_mm_has_notifiers(struct mm_struct *mm)
{
	return mm_has_notifiers(mm);
}

bool ckpt_mm_has_pinned(struct mm_struct *mm)
{
	return mm_flags_test(MMF_HAS_PINNED, mm);
}

void ckpt_tlb_flush_pending_inc(struct mm_struct *mm)
{
	inc_tlb_flush_pending(mm);
}

void ckpt_tlb_flush_pending_dec(struct mm_struct *mm)
{
	dec_tlb_flush_pending(mm);
}

#ifdef CONFIG_X86_64
u64 ckpt_tlb_generation(struct mm_struct *mm)
{
	return atomic64_read(&mm->context.tlb_gen);
}
#endif

/* mm/fault.rs */

void ckpt_release_fault_lock(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}

struct file *ckpt_get_file(struct file *file)
{
	return get_file(file);
}

/* mm/copies.rs */

struct folio *ckpt_folio_alloc_copy(void)
{
	return folio_alloc(GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_NOWARN, 0);
}

void ckpt_folio_copy(struct folio *to, struct folio *from)
{
	copy_highpage(folio_page(to, 0), folio_page(from, 0));
}

unsigned long ckpt_folio_to_user(void __user *to, struct folio *from)
{
	return copy_to_user(to, folio_address(from), PAGE_SIZE);
}

void ckpt_folio_get(struct folio *folio)
{
	folio_get(folio);
}

/* mm/control.rs */

void *ckpt_control_page_alloc(void)
{
	return (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
}

void ckpt_control_page_free(void *page)
{
	free_page((unsigned long)page);
}

struct page *ckpt_control_page_get(void *page)
{
	get_page(virt_to_page(page));
	return virt_to_page(page);
}

/* mm/wait.rs */

void ckpt_wait_queue_init(struct wait_queue_head *queue)
{
	init_waitqueue_head(queue);
}

int ckpt_wait_interruptible(struct wait_queue_head *queue, bool (*done)(void *), void *data)
{
	return wait_event_interruptible(*queue, done(data));
}

int ckpt_wait_killable(struct wait_queue_head *queue, bool (*done)(void *), void *data)
{
	return wait_event_killable(*queue, done(data));
}

int ckpt_wait_timeout(struct wait_queue_head *queue, bool (*done)(void *), void *data, u64 ns)
{
	return wait_event_interruptible_hrtimeout(*queue, done(data), ns_to_ktime(ns));
}

bool ckpt_has_sleeper(struct wait_queue_head *queue)
{
	return wq_has_sleeper(queue);
}

void ckpt_wake_all(struct wait_queue_head *queue)
{
	wake_up_all(queue);
}

void *ckpt_current(void)
{
	return current;
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

const struct cred *ckpt_current_cred_get(void)
{
	return get_current_cred();
}

bool ckpt_cred_ns_capable(const struct cred *cred, int cap)
{
	return ns_capable(cred->user_ns, cap);
}

/* mm/program.rs */

struct pid *ckpt_current_tgid_get(void)
{
	return get_pid(task_tgid(current));
}

bool ckpt_pid_has_process(struct pid *pid)
{
	return pid_has_task(pid, PIDTYPE_TGID);
}

void ckpt_cond_resched(void)
{
	cond_resched();
}
