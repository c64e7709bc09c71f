// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page tables, for mm/table.rs, which cannot inline what the kernel has for single entries.
 * Entries are given as up to 64 neighbours in one table, whose lock the caller holds; bit n
 * of a set stands for pte[n].
 */
#include <linux/bitops.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>

#include "ptes.h"

/*
 * As pte_offset_map_lock(), which modules do not get: what a pmd says is only good as
 * long as RCU keeps the table, so it is looked at again under the table's lock. Returns
 * NULL when there is no table.
 */
pte_t *ckpt_table_lock(struct mm_struct *mm, unsigned long addr, spinlock_t **lock)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd, entry;

	if (!pgd_present(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (!p4d_present(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (!pud_present(*pud) || pud_leaf(*pud))
		return NULL;
	pmd = pmd_offset(pud, addr);
	for (;;) {
		rcu_read_lock();
		entry = pmdp_get_lockless(pmd);
		if (!pmd_present(entry) || pmd_leaf(entry)) {
			rcu_read_unlock();
			return NULL;
		}
		*lock = pte_lockptr(mm, &entry);
		spin_lock(*lock);
		rcu_read_unlock();
		if (pmd_same(entry, pmdp_get_lockless(pmd)))
			return pte_offset_kernel(&entry, addr);
		spin_unlock(*lock);
	}
}

void ckpt_table_unlock(spinlock_t *lock)
{
	spin_unlock(lock);
}

/* All between the first and the last of them lie in the same table, too. */
u64 ckpt_ptes_dirty(pte_t *pte, u64 of)
{
	unsigned int first = __ffs64(of), end = fls64(of), n;
	u64 dirty = 0;

	for (n = first; n < end; n++) {
		if (unlikely(pte_dirty(ptep_get(pte + n))))
			dirty |= BIT_ULL(n);
	}
	dirty &= of;
	/* A swap entry or a marker can look dirty. */
	for (of = dirty; of; of &= of - 1) {
		n = __ffs64(of);
		if (!pte_present(ptep_get(pte + n)))
			dirty &= ~BIT_ULL(n);
	}
	return dirty;
}

u64 ckpt_ptes_clean(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of)
{
	u64 dirty = ckpt_ptes_dirty(pte, of);

	for (of = dirty; of; of &= of - 1) {
		unsigned int n = __ffs64(of);
		unsigned long at = addr + n * PAGE_SIZE;
		/* The processor may set bits until the entry is taken out. */
		pte_t entry = ptep_modify_prot_start(vma, at, pte + n);

		ptep_modify_prot_commit(vma, at, pte + n, entry, pte_mkclean(entry));
	}
	return dirty;
}

u64 ckpt_ptes_arm(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of,
		  bool *changed)
{
	u64 dirty = 0;

	for (; of; of &= of - 1) {
		unsigned int n = __ffs64(of);
		unsigned long at = addr + n * PAGE_SIZE;
		pte_t entry = ptep_get(pte + n);

		if (!pte_present(entry) || !(pte_write(entry) || pte_dirty(entry)))
			continue;
		entry = ptep_modify_prot_start(vma, at, pte + n);
		if (pte_dirty(entry))
			dirty |= BIT_ULL(n);
		ptep_modify_prot_commit(vma, at, pte + n, entry,
					pte_mkclean(pte_wrprotect(entry)));
		*changed = true;
	}
	return dirty;
}

u64 ckpt_ptes_open(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of)
{
	u64 open = 0;

	for (; of; of &= of - 1) {
		unsigned int n = __ffs64(of);
		unsigned long at = addr + n * PAGE_SIZE;
		pte_t entry = ptep_get(pte + n);

		if (!pte_present(entry))
			continue;
		/* As the kernel allows more: what the processor may set meanwhile is no loss. */
		if (!pte_write(entry))
			set_pte_at(vma->vm_mm, at, pte + n, pte_mkwrite_novma(entry));
		open |= BIT_ULL(n);
	}
	return open;
}
