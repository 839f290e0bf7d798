//! The `claudemesh` program as a person runs it: its own process, its own directory, a real broker.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod broadcast;
#[cfg(test)]
mod broker;
#[cfg(test)]
mod connection;
#[cfg(test)]
mod help;
#[cfg(test)]
mod local;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod onboarding;
mod people;
#[cfg(test)]
mod placeholders;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod retry;
#[cfg(test)]
mod said;
#[cfg(test)]
mod spelling;
#[cfg(test)]
mod team;
#[cfg(test)]
mod topic;
#[cfg(test)]
mod topic_inbox;
#[cfg(test)]
mod topic_key;
#[cfg(test)]
mod user;
#[cfg(test)]
mod walkthrough;
