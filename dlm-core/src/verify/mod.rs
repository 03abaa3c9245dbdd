//! Which bytes are right.
mod pieces;
mod proof;
pub use pieces::{FixedPieces, VariablePieces};
pub use proof::{Piece, PieceHasher, Proof, Verdict};
