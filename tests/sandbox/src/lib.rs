//! AWS on loopback: enough of it, with the real wire protocols and the real rules, that comfy-deploy
//! and its tests run without an account.
//!
//! - `world`: the whole state as one serialisable value behind one lock, and the context of a request.
//! - `server`, `wire`: HTTP in front of it: dispatch by signed service name, JSON and query protocols.
//! - `rules`, `faults`: the two tables: what AWS refuses (with its source), and what tests can break.
//! - `models`: what the API models say about requests, checked before any service sees them.
//! - `live`, `process`, `http`: what runs beside the state: functions (`lambda::invoke`) and the instances of endpoints
//!   (`sagemaker::instances`), processes that end with the sandbox however it ends; `container`: images of the registry
//!   run as such processes.
//! - one module a service. Each has `call(world, ctx, operation, input) -> output` in the JSON of the API,
//!   which both the wire and CloudFormation's resource providers use, so a rule binds both.
//!
//! Nothing here runs on timers of its own: `World::tick` moves everything that takes time, from deadlines
//! kept in the state, so a restarted sandbox goes on where it stopped.

pub mod cfn;
pub mod container;
pub mod ecr;
pub mod faults;
pub mod http;
pub mod iam;
pub mod input;
pub mod lambda;
pub mod live;
pub mod logs;
pub mod models;
pub mod process;
pub mod quotas;
pub mod rules;
pub mod s3;
pub mod sagemaker;
pub mod scaling;
pub mod server;
pub mod sts;
#[cfg(test)]
mod testing;
pub mod wire;
pub mod world;
