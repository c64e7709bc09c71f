/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef CKPT_PTES_H
#define CKPT_PTES_H

#include <linux/mm_types.h>
#include <linux/spinlock_types.h>
#include <linux/types.h>

/*
 * The entry of an address, and the lock of its table, held. NULL, and no lock, when there
 * is no table. The caller holds the mmap lock or the lock of the area.
 */
pte_t *ckpt_table_lock(struct mm_struct *mm, unsigned long addr, spinlock_t **lock);
void ckpt_table_unlock(spinlock_t *lock);

/* Those that are present and dirty. No set here is empty. */
u64 ckpt_ptes_dirty(pte_t *pte, u64 of);

/* Makes them clean. Those that were dirty. */
u64 ckpt_ptes_clean(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of);

/*
 * Makes them read-only and clean, both in one step: there is no moment at which
 * mprotect() could find an entry that is read-only and dirty. Those that were dirty;
 * *changed becomes true if any entry changed.
 */
u64 ckpt_ptes_arm(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of,
		  bool *changed);

/* Makes those writable that are present. Those that are. */
u64 ckpt_ptes_open(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of);

#endif
