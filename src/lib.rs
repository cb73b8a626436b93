//! The map of comfy-deploy.
//!
//! One directory with a `comfy-deploy.yaml` becomes a ComfyUI service in the user's own AWS account: models in S3, an
//! inference image in ECR, a SageMaker endpoint, and a Lambda function behind a URL, held by two CloudFormation
//! stacks. The *foundation stack* has the bucket and the repository, which outlive everything; the *service stack* has
//! the rest. Later changes (models, ComfyUI, instance type, scaling, removal) are the same sentence with another
//! subject: look at both sides, plan, show the plan, ask once, carry it out, verify what is live.
//!
//! # The modules, in reading order
//!
//! - [`cli`]: the verbs and flags; their doc comments are the help.
//! - [`config`]: `comfy-deploy.yaml`, its types, its rules, and errors that show the line.
//! - [`settings`]: flags over variables over the file over defaults, decided once, with the origin of each value.
//! - [`commands`]: one short file a verb.
//! - [`local`]: what is on disk, as content digests.
//! - [`cloud`]: the ports to AWS in our own words; `cloud::observe` reads the account, `cloud::aws` is the one importer
//!   of the SDKs.
//! - [`stack`]: the two templates, their parameters, how CloudFormation would fill them in, and what would change.
//! - [`plan`]: desired, local and observed state in, [`plan::Plan`] out; pure.
//! - [`fetch`]: model files from Hugging Face, Civitai, the web and S3, resumed, verified and locked; or read where they are.
//! - [`pack`]: the model artifact as a stream of numbered parts; knows no network.
//! - [`transfer`]: parts into S3; knows no format.
//! - [`container`]: build and push with whatever container tool works, the gate that lets only images pass which
//!   SageMaker accepts, and ComfyUI's editor in a container on this machine.
//! - [`record`]: deployment records; creating one is the lock.
//! - [`apply`]: a confirmed plan carried out, followed, verified, and told when it fails.
//! - [`invoke`]: a request to the deployed app, and what its reply means; pure.
//! - [`progress`]: events and the two ways to draw them. [`ui`]: the only writer to stdout and stderr.
//! - [`error`]: what happened, why, what to type next, and the exit code.
//!
//! # One `up`, followed
//!
//! `main` parses the command line, listens for Ctrl-C and connects the ports. [`settings::resolve`] decides; after it
//! nobody reads flags, variables or YAML. [`commands::look`] then looks at both sides at the same time: files are
//! hashed (unchanged ones come from a cache), and `cloud::observe` reads the account, the two stacks, the endpoint, and
//! whether the wanted artifacts are there already, for their names are their content. [`plan::up`] compares. When
//! nothing differs, that was all. Otherwise the plan is shown, the quota is checked if the fleet grows, and the one
//! question is asked.
//!
//! [`apply::deploy`] takes the plan as it is. The foundation stack comes first, if it is missing. Then image, model
//! artifact and function package are made and sent side by side. An image that was built is known by its digest only
//! now, so [`plan::Plan::service_for`] finishes the plan by the same rules. [`apply::operation`] asks CloudFormation for a
//! change set and refuses it if it would replace or remove what the plan did not show. A deployment record is created
//! before the change set is executed: whoever creates it holds the lock, and a run that dies leaves it without an
//! outcome for the next one to complete. [`apply::follow`] watches stack, endpoint and container log until no operation
//! runs. [`apply::verify`] compares the live endpoint with the plan, for SageMaker can go back to the old model and still
//! call itself InService; only then are superseded models and endpoint configs deleted, by their tags. A change of
//! instance type under autoscaling walks this path twice, and is put back if the second half fails.
//!
//! Whatever interrupts a run (Ctrl-C, the deadline, lost credentials, `kill -9`), the same command continues: parts and
//! images that are there are not sent again, and an operation that goes on in AWS is joined.

pub mod apply;
pub mod cli;
pub mod cloud;
pub mod commands;
pub mod config;
pub mod container;
pub mod error;
pub mod fetch;
pub mod invoke;
pub mod local;
pub mod pack;
pub mod plan;
pub mod progress;
pub mod record;
pub mod settings;
pub mod stack;
pub mod transfer;
pub mod ui;
