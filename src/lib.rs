//! The map of comfy-deploy. (Completed as the modules land.)

pub mod apply;
pub mod cli;
pub mod cloud;
pub mod commands;
pub mod config;
pub mod container;
pub mod error;
pub mod local;
pub mod pack;
pub mod plan;
pub mod progress;
pub mod record;
pub mod settings;
pub mod stack;
pub mod transfer;
pub mod ui;
