//! Traces of conversations that grow, made from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::random::{Random, Zipf};
use crate::{BLOCK_TOKENS, Request};

/// What a made trace looks like. The defaults resemble what is public about two services:
///
/// - Mooncake's `conversation` trace (FAST '25 release): 12,031 requests in an hour, prompts of 900 to 90,000 tokens with
///   most below 20,000, answers of some hundred tokens, one system prompt in front of almost all;
/// - "KVCache Cache in the Wild" (arXiv 2506.02634), a service for people: an endless cache would hit 54 to 62 % of
///   blocks, single requests matter as much as conversations, and four of five blocks are used again within 10 minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The same seed makes the same trace. Default 1.
    pub seed: u64,
    /// Requests in the trace. Default 12,000, some 70 minutes at the default arrival.
    pub requests: u64,
    /// Conversations that begin in a second, on average (Poisson). Default 1.3.
    pub sessions_per_second: f64,
    /// Different system prompts. Default 100.
    pub system_prompts: usize,
    /// How much more popular the first of them are (Zipf's exponent; 0: all alike). Default 1.1.
    pub popularity: f64,
    /// Median tokens of a system prompt (log-normal, spread 0.8). Default 1,000.
    pub system_tokens: f64,
    /// Median tokens of what a conversation begins with: documents, code (log-normal, spread 1.1). Default 4,500.
    pub opening_tokens: f64,
    /// Median tokens of each later message (log-normal, spread 1.3). Default 250.
    pub message_tokens: f64,
    /// Median tokens of an answer (log-normal, spread 0.9). Default 300.
    pub answer_tokens: f64,
    /// Probability that a conversation has a second turn. Default 0.5.
    pub second_turn: f64,
    /// Probability that one of at least two turns has another. Default 0.7.
    pub further_turn: f64,
    /// Median seconds from a turn to the next (log-normal, spread 1.65: four of five come within 4 medians). Default 150.
    pub think_seconds: f64,
    /// Tokens at which a conversation ends. Default 131,072.
    pub longest_prompt: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            seed: 1,
            requests: 12_000,
            sessions_per_second: 1.3,
            system_prompts: 100,
            popularity: 1.1,
            system_tokens: 1_000.0,
            opening_tokens: 4_500.0,
            message_tokens: 250.0,
            answer_tokens: 300.0,
            second_turn: 0.5,
            further_turn: 0.7,
            think_seconds: 150.0,
            longest_prompt: 131_072,
        }
    }
}

const SYSTEM_SPREAD: f64 = 0.8;
const OPENING_SPREAD: f64 = 1.1;
const MESSAGE_SPREAD: f64 = 1.3;
const ANSWER_SPREAD: f64 = 0.9;
const THINK_SPREAD: f64 = 1.65;

/// The requests of a made trace, in order of time; holds only the conversations that go on.
#[derive(Debug)]
pub struct Generator {
    shape: Shape,
    random: Random,
    popularity: Zipf,
    /// What each system prompt fills whole, once it was used, and its tokens.
    systems: Vec<Option<(Vec<u64>, u64)>>,
    /// Turns to come, the next first.
    turns: BinaryHeap<Reverse<Turn>>,
    next_session_ms: f64,
    next_id: u64,
    sessions: u64,
    made: u64,
}

/// A conversation's next turn. Ordered by time, then by the conversation's number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    at_ms: u64,
    session: u64,
    first: bool,
    tokens: u64,
    full: Vec<u64>,
}

impl Generator {
    /// The trace of that shape.
    pub fn new(shape: Shape) -> Self {
        let mut random = Random::new(shape.seed);
        let next_session_ms = between_sessions(&shape, &mut random);
        Self {
            popularity: Zipf::new(shape.system_prompts, shape.popularity),
            systems: vec![None; shape.system_prompts.max(1)],
            turns: BinaryHeap::new(),
            next_id: 0,
            sessions: 0,
            made: 0,
            next_session_ms,
            random,
            shape,
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn tokens(&mut self, median: f64, spread: f64) -> u64 {
        (self.random.log_normal(median, spread) as u64).max(1)
    }

    fn open(&mut self) -> Turn {
        let rank = self.popularity.rank(&mut self.random);
        let (full, system) = match &self.systems[rank] {
            Some(known) => known.clone(),
            None => {
                let tokens = self.tokens(self.shape.system_tokens, SYSTEM_SPREAD);
                let full = (0..tokens / BLOCK_TOKENS).map(|_| self.id()).collect();
                let new: (Vec<u64>, u64) = (full, tokens);
                self.systems[rank] = Some(new.clone());
                new
            }
        };
        let at_ms = self.next_session_ms as u64;
        self.next_session_ms += between_sessions(&self.shape, &mut self.random);
        self.sessions += 1;
        Turn {
            at_ms,
            session: self.sessions,
            first: true,
            tokens: system + self.tokens(self.shape.opening_tokens, OPENING_SPREAD),
            full,
        }
    }

    fn serve(&mut self, mut turn: Turn) -> Request {
        turn.tokens = turn.tokens.min(self.shape.longest_prompt.max(1));
        while (turn.full.len() as u64) < turn.tokens / BLOCK_TOKENS {
            turn.full.push(self.id());
        }
        let mut hash_ids = turn.full.clone();
        hash_ids.truncate((turn.tokens / BLOCK_TOKENS) as usize);
        if !turn.tokens.is_multiple_of(BLOCK_TOKENS) {
            // What fills the block later makes another block of it.
            hash_ids.push(self.id());
        }
        let request = Request {
            timestamp_ms: turn.at_ms,
            input_length: turn.tokens,
            output_length: self.tokens(self.shape.answer_tokens, ANSWER_SPREAD),
            hash_ids,
        };
        let goes_on = match turn.first {
            true => self.shape.second_turn,
            false => self.shape.further_turn,
        };
        if turn.tokens < self.shape.longest_prompt && self.random.chance(goes_on) {
            let think = self
                .random
                .log_normal(self.shape.think_seconds * 1000.0, THINK_SPREAD);
            turn.at_ms = turn.at_ms.saturating_add(think as u64);
            turn.tokens += request.output_length;
            turn.tokens += self.tokens(self.shape.message_tokens, MESSAGE_SPREAD);
            turn.first = false;
            self.turns.push(Reverse(turn));
        }
        request
    }
}

fn between_sessions(shape: &Shape, random: &mut Random) -> f64 {
    random.exponential(1000.0 / shape.sessions_per_second)
}

impl Iterator for Generator {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.made == self.shape.requests {
            return None;
        }
        self.made += 1;
        let waiting = self.turns.peek().map(|Reverse(turn)| turn.at_ms);
        let turn = match waiting {
            Some(at_ms) if at_ms <= self.next_session_ms as u64 => {
                self.turns.pop().map(|Reverse(turn)| turn)
            }
            _ => None,
        };
        let turn = turn.unwrap_or_else(|| self.open());
        Some(self.serve(turn))
    }
}
