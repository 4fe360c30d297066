//! The command line.

mod expression;
mod literal;
mod scanner;
#[cfg(test)]
mod tests;
