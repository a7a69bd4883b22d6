//! A simulated client: asks, uses what it gets, gives it back; or dies and goes on using its keys.

use crate::message::{Ask, Key, Stands};
use crate::random::Random;
use std::collections::BTreeMap;
use toci_core::id::LeaseId;

#[derive(Clone, Debug)]
pub(crate) enum Doing {
    Nothing,
    /// Asked, not answered: it asks again with the same key.
    Asking(String, Box<Ask>),
    /// Has a lease, waiting or active; releases it after so many timers.
    Has(LeaseId, u64),
}

pub(crate) struct SimClient {
    pub(crate) doing: Doing,
    pub(crate) alive: bool,
    /// Every key it ever had.
    pub(crate) keys: Vec<Key>,
    asked: u64,
    /// What it was told of each lease last, except that it is over.
    pub(crate) told: BTreeMap<LeaseId, Stands>,
}

impl SimClient {
    pub(crate) fn new() -> SimClient {
        SimClient {
            doing: Doing::Nothing,
            alive: true,
            keys: vec![],
            asked: 0,
            told: BTreeMap::new(),
        }
    }

    /// What it says now.
    pub(crate) fn timer(&mut self, name: usize, calm: bool, random: &mut Random) -> Vec<Ask> {
        if !self.alive {
            return vec![];
        }
        match &mut self.doing {
            Doing::Nothing if calm || !random.per_mille(400) => vec![],
            Doing::Nothing => {
                self.asked += 1;
                let key = format!("c{name}-{}", self.asked);
                let wait_s = random.per_mille(200).then(|| 1 + random.below(120));
                let ask = Ask::Request {
                    key: key.clone(),
                    count: [1, 1, 1, 1, 2, 2, 3][random.index(7)],
                    timeout_s: 20 + random.below(300),
                    wait_s,
                    priority: u8::try_from(random.below(101)).unwrap_or(0),
                };
                self.doing = Doing::Asking(key, Box::new(ask.clone()));
                vec![ask]
            }
            Doing::Asking(_, ask) => vec![(**ask).clone()],
            Doing::Has(lease, left) => {
                *left = left.saturating_sub(1);
                let lease = *lease;
                if *left == 0 {
                    return vec![Ask::Release(lease)];
                }
                let mut asks = vec![Ask::Heartbeat(lease)];
                if random.per_mille(60) {
                    asks.push(Ask::Extend(lease, 10 + random.below(400)));
                }
                if random.per_mille(20) {
                    asks.push(Ask::Hold(lease, 10 + random.below(60)));
                }
                asks
            }
        }
    }

    /// The server's word on a lease.
    pub(crate) fn hears(
        &mut self,
        lease: LeaseId,
        key: Option<&str>,
        stands: Stands,
        random: &mut Random,
    ) {
        if let Stands::Active(keys) = &stands {
            for key in keys {
                if !self.keys.contains(key) {
                    self.keys.push(key.clone());
                }
            }
        }
        if let Doing::Asking(mine, _) = &self.doing
            && key == Some(mine.as_str())
        {
            self.doing = Doing::Has(lease, 2 + random.below(20));
        }
        let over = match stands {
            Stands::Over | Stands::Unknown => true,
            Stands::Waiting | Stands::Granted | Stands::Active(_) => false,
        };
        if over {
            self.told.remove(&lease);
            if matches!(self.doing, Doing::Has(mine, _) if mine == lease) {
                self.doing = Doing::Nothing;
            }
        } else {
            self.told.insert(lease, stands);
        }
    }

    pub(crate) fn refused(&mut self, key: &str) {
        if matches!(&self.doing, Doing::Asking(mine, _) if mine == key) {
            self.doing = Doing::Nothing;
        }
    }
}
