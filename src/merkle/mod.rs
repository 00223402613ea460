//! The ledger's Merkle tree: hashes, compact ranges and proofs of RFC 6962 section 2 (RFC 9162 section 2.1).
//!
//! Invariants: a leaf and an interior node never hash alike (prefixes 0x00 and 0x01); a [`CompactRange`] of
//! `size` leaves holds exactly one hash per set bit of `size`; a verifier accepts only the one proof that the
//! RFC defines. Not here: what a leaf's bytes are (`entry`), who signs a root (`note`), where hashes are kept
//! (`ledger`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// A SHA-256 hash: of a leaf, of an interior node, or of a whole tree.
pub type Hash = [u8; 32];

/// The largest tree, in leaves. Other C2SP implementations keep tree sizes in a signed 64-bit integer (Go's
/// `tlog` does), so a larger tree could not be checked by them.
pub const TREE_SIZE_LEAVES_MAX: u64 = i64::MAX as u64;

/// Why a compact range or a proof was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// A stored compact range does not fit the tree size beside it.
    #[error(
        "a tree of {size} leaves has {expected} subtree hashes, but {found} are given: \
         take range and size from the same intact frame"
    )]
    RangeLength {
        /// Leaves in the tree.
        size: u64,
        /// Set bits of `size`.
        expected: u32,
        /// Hashes given.
        found: usize,
    },
    /// The tree size is beyond [`TREE_SIZE_LEAVES_MAX`], which no real ledger reaches.
    #[error(
        "a tree of {size} leaves is beyond the {TREE_SIZE_LEAVES_MAX} that any verifier accepts: \
         the size was damaged or forged"
    )]
    TreeTooLarge {
        /// Leaves claimed.
        size: u64,
    },
    /// The leaf asked about is not in the tree.
    #[error("leaf {index} is not in a tree of {size} leaves: ask for a checkpoint that covers it")]
    LeafOutsideTree {
        /// Index of the leaf, from 0.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The tree said to be newer is the smaller one.
    #[error(
        "a tree of {old_size} leaves cannot have grown into one of {new_size}: \
         swap the two, or suspect that an older copy was put back"
    )]
    TreeShrank {
        /// Leaves in the older tree.
        old_size: u64,
        /// Leaves in the newer tree.
        new_size: u64,
    },
    /// The proof has too many or too few hashes for the sizes that it is about.
    #[error(
        "a proof of {found} hashes has the wrong length for a tree of {size} leaves: \
         fetch the proof for exactly this size"
    )]
    ProofLength {
        /// Leaves in the (newer) tree.
        size: u64,
        /// Hashes in the proof.
        found: usize,
    },
    /// The proof leads to another root than the one given.
    #[error(
        "the tree of {size} leaves has the root {}, but {} was expected: \
         the leaf, the proof or the expected root was altered",
        STANDARD.encode(.computed), STANDARD.encode(.expected)
    )]
    RootMismatch {
        /// Leaves in the tree whose root differs.
        size: u64,
        /// The root that follows from the proof.
        computed: Hash,
        /// The root that the caller trusts.
        expected: Hash,
    },
}

/// The hash of a leaf, SHA-256(0x00 ‖ `entry`).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0x00]).chain_update(entry).finalize().into()
}

/// The hash of an interior node, SHA-256(0x01 ‖ `left` ‖ `right`).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([0x01]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves, the SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// All that a growing tree must remember of its leaves `[0, size)`: the roots of the complete subtrees that
/// they form, largest (leftmost) first, at most 63 hashes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CompactRange {
    size: u64,
    hashes: Vec<Hash>,
}

impl CompactRange {
    /// The range of no leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The range as stored: `hashes` as [`CompactRange::hashes`] gave them when the tree had `size` leaves.
    /// Whether the hashes are right shows only when their root meets a checkpoint.
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Result<Self, MerkleError> {
        if size > TREE_SIZE_LEAVES_MAX {
            return Err(MerkleError::TreeTooLarge { size });
        }
        let expected = size.count_ones();
        if hashes.len() != expected as usize {
            return Err(MerkleError::RangeLength { size, expected, found: hashes.len() });
        }
        Ok(Self { size, hashes })
    }

    /// Appends the leaf at index `size`.
    pub fn push(&mut self, leaf: Hash) {
        // Each trailing one bit of the old size is a complete subtree at the right edge, as large as what has
        // been gathered so far; adding the leaf completes their common parent, just as the carry runs in a
        // binary sum.
        let complete = self.size.trailing_ones() as usize;
        let kept = self.hashes.len() - complete;
        let merged = self.hashes.drain(kept..).rev().fold(leaf, |right, left| node_hash(&left, &right));
        self.hashes.push(merged);
        self.size += 1;
    }

    /// Leaves in the range.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest (leftmost) first; one per set bit of the size.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The Merkle tree hash over all leaves of the range (RFC 9162 section 2.1.1).
    pub fn root(&self) -> Hash {
        let mut right_to_left = self.hashes.iter().rev();
        let Some(smallest) = right_to_left.next() else { return empty_root() };
        right_to_left.fold(*smallest, |right, left| node_hash(left, &right))
    }
}

/// The proof that the leaf at `index` is in the tree over `leaves` (RFC 9162 section 2.1.3.1), leaf level
/// first.
///
/// # Panics
/// If `index` is not an index of `leaves`, as a slice does.
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Vec<Hash> {
    assert!(index < leaves.len(), "no leaf {index} among {} leaves", leaves.len());
    let (mut subtree, mut index, mut proof) = (leaves, index, Vec::new());
    while subtree.len() > 1 {
        let (left, right) = subtree.split_at(left_subtree_leaves(subtree.len()));
        if index < left.len() {
            proof.push(root_of(right));
            subtree = left;
        } else {
            proof.push(root_of(left));
            index -= left.len();
            subtree = right;
        }
    }
    proof.reverse();
    proof
}

/// The proof that the tree over `leaves` continues the tree over its first `old_size` leaves (RFC 9162
/// section 2.1.4.1). Empty where nothing needs proof: `old_size` is 0 or all leaves.
///
/// # Panics
/// If `old_size` is more than the number of leaves, as a slice does.
pub fn consistency_proof(leaves: &[Hash], old_size: usize) -> Vec<Hash> {
    assert!(old_size <= leaves.len(), "no old tree of {old_size} leaves within {}", leaves.len());
    let (mut subtree, mut old_leaves, mut proof) = (leaves, old_size, Vec::new());
    while 0 < old_leaves && old_leaves < subtree.len() {
        let (left, right) = subtree.split_at(left_subtree_leaves(subtree.len()));
        if old_leaves <= left.len() {
            proof.push(root_of(right));
            subtree = left;
        } else {
            proof.push(root_of(left));
            old_leaves -= left.len();
            subtree = right;
        }
    }
    // The walk ended at the last complete subtree of the old tree. Where that is the whole old tree, on the
    // left edge, the verifier knows its root already.
    if old_leaves < old_size {
        proof.push(root_of(subtree));
    }
    proof.reverse();
    proof
}

/// Checks that the leaf hash `leaf` stands at `index` in the tree of `size` leaves with the given `root`
/// (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), MerkleError> {
    if index >= size {
        return Err(MerkleError::LeafOutsideTree { index, size });
    }
    let wrong_length = MerkleError::ProofLength { size, found: proof.len() };
    let mut path = Path { node: index, last: size - 1 };
    let mut computed = *leaf;
    for sibling in proof {
        computed = match path.climb() {
            None => return Err(wrong_length),
            Some(Side::Left) => node_hash(sibling, &computed),
            Some(Side::Right) => node_hash(&computed, sibling),
        };
    }
    if !path.at_root() {
        return Err(wrong_length);
    }
    same_root(size, computed, root)
}

/// Checks that the tree of `new_size` leaves continues the tree of `old_size` leaves: the first `old_size`
/// leaves are the same (RFC 9162 section 2.1.4.2). Trees of equal size must have equal roots, and the tree of
/// no leaves must have [`empty_root`]; both with an empty proof.
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), MerkleError> {
    if old_size > new_size {
        return Err(MerkleError::TreeShrank { old_size, new_size });
    }
    let wrong_length = MerkleError::ProofLength { size: new_size, found: proof.len() };
    if old_size == 0 || old_size == new_size {
        if !proof.is_empty() {
            return Err(wrong_length);
        }
        return without_proof(old_size, new_size, old_root, new_root);
    }
    // An old tree that is one complete subtree is where the climb starts; else the proof begins with the last
    // complete subtree of the old tree.
    let (start, siblings) = match proof.split_first() {
        None => return Err(wrong_length),
        Some(_) if old_size.is_power_of_two() => (*old_root, proof),
        Some((first, rest)) => (*first, rest),
    };
    let mut path = Path { node: old_size - 1, last: new_size - 1 };
    path.skip_complete_subtree();
    let (mut old_computed, mut new_computed) = (start, start);
    for sibling in siblings {
        match path.climb() {
            None => return Err(wrong_length),
            Some(Side::Left) => {
                old_computed = node_hash(sibling, &old_computed);
                new_computed = node_hash(sibling, &new_computed);
            }
            // What stands to the right of the old tree's edge is new: it does not count in the old root.
            Some(Side::Right) => new_computed = node_hash(&new_computed, sibling),
        }
    }
    if !path.at_root() {
        return Err(wrong_length);
    }
    same_root(old_size, old_computed, old_root)?;
    same_root(new_size, new_computed, new_root)
}

/// Consistency where the sizes alone decide: the old tree is empty, or nothing was added.
fn without_proof(old_size: u64, new_size: u64, old_root: &Hash, new_root: &Hash) -> Result<(), MerkleError> {
    if old_size == 0 {
        same_root(0, empty_root(), old_root)?;
    }
    if old_size == new_size {
        same_root(new_size, *old_root, new_root)?;
    }
    Ok(())
}

/// The side on which a proof's next hash stands.
enum Side {
    Left,
    Right,
}

/// A climb from one node towards the root: the node's index at its level, and that level's last index
/// (`fn` and `sn` in RFC 9162).
struct Path {
    node: u64,
    last: u64,
}

impl Path {
    /// Goes up to the parent, past levels at which the node has no sibling. Tells where the sibling stood, or
    /// `None` when the node is the root and has none.
    fn climb(&mut self) -> Option<Side> {
        if self.at_root() {
            return None;
        }
        let is_right_child = self.node & 1 == 1;
        if !is_right_child && self.node == self.last {
            // The last node of a level without a sibling is carried up unchanged until it is a right child.
            // It gets there: the node is not 0, or it would be the root.
            let levels = self.node.trailing_zeros();
            self.node >>= levels;
            self.last >>= levels;
        }
        let side = if self.node & 1 == 1 { Side::Left } else { Side::Right };
        self.node >>= 1;
        self.last >>= 1;
        Some(side)
    }

    /// Goes up from the last leaf of a tree to the root of the complete subtree that it closes.
    fn skip_complete_subtree(&mut self) {
        let levels = self.node.trailing_ones();
        self.node >>= levels;
        self.last >>= levels;
    }

    /// Whether the level has only one node.
    fn at_root(&self) -> bool {
        self.last == 0
    }
}

/// Leaves in the left child of a tree of `leaves` (two or more): the largest power of two below `leaves`.
fn left_subtree_leaves(leaves: usize) -> usize {
    1 << (leaves - 1).ilog2()
}

fn root_of(leaves: &[Hash]) -> Hash {
    let mut range = CompactRange::new();
    for leaf in leaves {
        range.push(*leaf);
    }
    range.root()
}

fn same_root(size: u64, computed: Hash, expected: &Hash) -> Result<(), MerkleError> {
    if computed == *expected {
        return Ok(());
    }
    Err(MerkleError::RootMismatch { size, computed, expected: *expected })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The entries of the Certificate Transparency reference tests (google/certificate-transparency
    /// `merkle_tree_test.cc`, transparency-dev/merkle `proof/verify_test.go`), in hex.
    const ENTRIES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

    /// The roots of the trees over the first 0 to 8 of [`ENTRIES`], from the same source.
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    /// (leaf index from 0, tree size, inclusion proof), from the same source.
    const INCLUSION: [(usize, usize, &[&str]); 5] = [
        (0, 1, &[]),
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
        (
            1,
            5,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];

    /// (old size, new size, consistency proof), from the same source.
    const CONSISTENCY: [(usize, usize, &[&str]); 5] = [
        (1, 1, &[]),
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
        (
            6,
            7,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        assert_eq!(hex.len() % 2, 0, "whole bytes");
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn hash(hex: &str) -> Hash {
        bytes(hex).try_into().unwrap()
    }

    fn hashes(hex: &[&str]) -> Vec<Hash> {
        hex.iter().map(|hex| hash(hex)).collect()
    }

    fn reference_leaves() -> Vec<Hash> {
        ENTRIES.iter().map(|entry| leaf_hash(&bytes(entry))).collect()
    }

    /// Leaves that are told apart by their index.
    fn numbered_leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    /// MTH of RFC 9162 section 2.1.1, word for word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let mut split = 1;
                while split * 2 < leaves.len() {
                    split *= 2;
                }
                node_hash(&naive_root(&leaves[..split]), &naive_root(&leaves[split..]))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_reference_tests() {
        let mut range = CompactRange::new();
        assert_eq!(range.root(), hash(ROOTS[0]));
        for (leaf, root) in reference_leaves().into_iter().zip(&ROOTS[1..]) {
            range.push(leaf);
            assert_eq!(range.root(), hash(root), "tree of {} leaves", range.size());
        }
        assert_eq!(range.size(), 8);
    }

    #[test]
    fn inclusion_proofs_are_those_of_the_reference_tests() {
        for (index, size, expected) in INCLUSION {
            let leaves = &reference_leaves()[..size];
            let proof = inclusion_proof(leaves, index);
            assert_eq!(proof, hashes(expected), "leaf {index} of {size}");
            verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &hash(ROOTS[size])).unwrap();
        }
    }

    #[test]
    fn consistency_proofs_are_those_of_the_reference_tests() {
        for (old, new, expected) in CONSISTENCY {
            let proof = consistency_proof(&reference_leaves()[..new], old);
            assert_eq!(proof, hashes(expected), "from {old} to {new}");
            verify_consistency(old as u64, new as u64, &hash(ROOTS[old]), &hash(ROOTS[new]), &proof).unwrap();
        }
    }

    /// Each proof of small trees verifies, and for no other index, size, leaf, root or list of hashes.
    #[test]
    fn an_inclusion_proof_proves_one_thing_only() {
        for size in 1..=17 {
            let leaves = numbered_leaves(size);
            let root = naive_root(&leaves);
            for index in 0..size {
                let proof = inclusion_proof(&leaves, index);
                let verdict = |leaf: usize, at: usize, size: usize, proof: &[Hash], root: &Hash| {
                    verify_inclusion(&leaves[leaf], at as u64, size as u64, proof, root).is_ok()
                };
                assert!(verdict(index, index, size, &proof, &root), "leaf {index} of {size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert!(!verdict(other, index, size, &proof, &root), "leaf {other} at {index} of {size}");
                    assert!(!verdict(index, other, size, &proof, &root), "leaf {index} at {other} of {size}");
                }
                assert!(!verdict(index, size, size, &proof, &root), "index beyond {size}");
                assert!(!verdict(index, index, size, &proof, &empty_root()));
                for altered in altered_proofs(&proof, root) {
                    assert!(!verdict(index, index, size, &altered, &root), "altered, leaf {index} of {size}");
                }
            }
        }
    }

    #[test]
    fn a_consistency_proof_proves_one_thing_only() {
        for new in 1..=17 {
            let leaves = numbered_leaves(new);
            let root = |size: usize| naive_root(&leaves[..size]);
            for old in 1..new {
                let proof = consistency_proof(&leaves, old);
                let verdict = |old: usize, old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                    verify_consistency(old as u64, new as u64, old_root, new_root, proof).is_ok()
                };
                assert!(verdict(old, &root(old), &root(new), &proof), "from {old} to {new}");
                assert!(!verdict(old, &root(new), &root(old), &proof), "roots swapped, {old} to {new}");
                assert!(!verdict(old, &root(old), &empty_root(), &proof));
                assert!(!verdict(old, &empty_root(), &root(new), &proof));
                for other in (0..=new).filter(|other| *other != old) {
                    assert!(!verdict(other, &root(old), &root(new), &proof), "{other} for {old} to {new}");
                }
                for altered in altered_proofs(&proof, root(new)) {
                    assert!(!verdict(old, &root(old), &root(new), &altered), "altered, {old} to {new}");
                }
            }
        }
    }

    /// Each hash with one bit changed or left out, and a hash added at either end.
    fn altered_proofs(proof: &[Hash], extra: Hash) -> Vec<Vec<Hash>> {
        let mut altered = vec![[proof, &[extra]].concat(), [&[extra], proof].concat()];
        for at in 0..proof.len() {
            let mut flipped = proof.to_vec();
            flipped[at][at % 32] ^= 1 << (at % 8);
            altered.push(flipped);
            altered.push([&proof[..at], &proof[at + 1..]].concat());
        }
        altered
    }

    #[test]
    fn consistency_without_a_proof_still_compares_roots() {
        let (empty, one, other) = (empty_root(), leaf_hash(b"one"), leaf_hash(b"other"));
        assert_eq!(verify_consistency(0, 0, &empty, &empty, &[]), Ok(()));
        assert_eq!(verify_consistency(0, 1, &empty, &one, &[]), Ok(()));
        assert_eq!(verify_consistency(1, 1, &one, &one, &[]), Ok(()));
        let mismatch = |size, computed, expected| Err(MerkleError::RootMismatch { size, computed, expected });
        assert_eq!(verify_consistency(0, 0, &one, &one, &[]), mismatch(0, empty, one));
        assert_eq!(verify_consistency(0, 1, &other, &one, &[]), mismatch(0, empty, other));
        assert_eq!(verify_consistency(1, 1, &one, &other, &[]), mismatch(1, one, other));
        for (old, new, old_root) in [(0, 0, empty), (0, 1, empty), (1, 1, one)] {
            let wrong_length = Err(MerkleError::ProofLength { size: new, found: 1 });
            assert_eq!(verify_consistency(old, new, &old_root, &old_root, &[other]), wrong_length);
        }
        let shrank = Err(MerkleError::TreeShrank { old_size: 2, new_size: 1 });
        assert_eq!(verify_consistency(2, 1, &one, &one, &[]), shrank);
    }

    #[test]
    fn a_range_with_another_number_of_hashes_is_refused() {
        let leaf = leaf_hash(b"");
        for (size, expected, found) in [(0, 0, 1), (1, 1, 0), (6, 2, 3), (7, 3, 2)] {
            let refused = Err(MerkleError::RangeLength { size, expected, found });
            assert_eq!(CompactRange::from_parts(size, vec![leaf; found]), refused);
        }
        let size = TREE_SIZE_LEAVES_MAX + 1;
        assert_eq!(CompactRange::from_parts(size, vec![leaf]), Err(MerkleError::TreeTooLarge { size }));
        let mut fullest = CompactRange::from_parts(TREE_SIZE_LEAVES_MAX, vec![leaf; 63]).unwrap();
        fullest.push(leaf);
        assert_eq!((fullest.size(), fullest.hashes().len()), (TREE_SIZE_LEAVES_MAX + 1, 1));
    }

    /// Sizes near the limits of the type must neither panic nor loop: they come from whoever wrote the proof.
    #[test]
    fn absurd_sizes_are_refused_without_a_panic() {
        let (leaf, proof) = (leaf_hash(b""), vec![leaf_hash(b""); 70]);
        for size in [1, 2, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX] {
            for index in [0, 1, size / 2, size - 1, size, u64::MAX] {
                for length in [0, 1, 63, 64, 65, 70] {
                    let verdict = verify_inclusion(&leaf, index, size, &proof[..length], &leaf);
                    assert_eq!(verdict.is_ok(), size == 1 && index == 0 && length == 0, "{index} of {size}");
                    let verdict = verify_consistency(index, size, &leaf, &leaf, &proof[..length]);
                    assert_eq!(verdict.is_ok(), index == size && length == 0, "{index} to {size}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_range_has_the_root_of_its_leaves(count in 0_usize..300, pause in 0_usize..300) {
            let leaves = numbered_leaves(count);
            let mut range = CompactRange::new();
            for (index, leaf) in leaves.iter().enumerate() {
                if index == pause {
                    range = CompactRange::from_parts(range.size(), range.hashes().to_vec()).unwrap();
                }
                range.push(*leaf);
            }
            prop_assert_eq!(range.size(), count as u64);
            prop_assert_eq!(range.hashes().len(), count.count_ones() as usize);
            prop_assert_eq!(range.root(), naive_root(&leaves));
        }

        #[test]
        fn every_leaf_and_every_past_is_provable(
            count in 1_usize..300,
            which in any::<prop::sample::Index>(),
        ) {
            let leaves = numbered_leaves(count);
            let (root, at) = (naive_root(&leaves), which.index(count));
            let proof = inclusion_proof(&leaves, at);
            prop_assert_eq!(verify_inclusion(&leaves[at], at as u64, count as u64, &proof, &root), Ok(()));
            let (proof, old_root) = (consistency_proof(&leaves, at), naive_root(&leaves[..at]));
            prop_assert_eq!(verify_consistency(at as u64, count as u64, &old_root, &root, &proof), Ok(()));
        }
    }
}
