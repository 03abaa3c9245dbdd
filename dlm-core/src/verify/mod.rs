//! Which bytes are right.
mod proof;
mod pieces;
pub use pieces::{FixedPieces, VariablePieces};
pub use proof::{Piece, PieceHasher, Proof, Verdict};
