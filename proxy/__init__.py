"""Weir: a streaming safety proxy for the OpenAI API.

The path of a request, room by room:

cli, __main__    the `weir` command, its usage and its manual; init, completion, doctor, moderate, demo, export,
                 evaluation/, benchmark/ are its other jobs; neighbours helps doctor with a wrong base URL
config, config_file, settings, policy_settings, setting_names, setting_types
                 what can be set, refused with a sentence; reload reads it again
serving          `weir serve`, from the settings to the exit status
app, connections, in_parts
                 routes, and one server around them; what one read of a socket brings is parsed in parts
loading, current what stands for a guard that is not there yet; what requests find, and keep to their end
workers, crew, worker, joint_metrics
                 several processes that serve on one port: their parent, and one of them; their numbers as one
admission        how many requests may run, and how they end when the server stops
hosts            by which names it may be asked
identity, key_limits, shared_usage, exposure
                 whose key a request shows, how much that one may ask, be it of several processes, and whether others
                 can reach us at all
entrance         who is let in
handlers         one coroutine an endpoint; replies, streamed, client_writer and chunk_writer, what its client gets
metrics, admin   numbers, and the operator's own listener that tells them; console/ is the page on it
hold_times       how long text was held
telemetry/       traces for a collector of OpenTelemetry
request_body     a request's JSON, read strictly
messages, conversation, prompts
                 a request's messages -> the guard's prompt tokens -> one verdict
dialects/        a chat request in the words of an upstream that does not speak chat
policies         which policy a request gets; policy_check explains them, annotations tells in which notation
exchange         one moderated request, from its prompt to its record
upstreams        which of several LLM APIs a model goes to
upstream, upstream_headers, upstream_pool, upstream_route, upstream_connection, upstream_body
                 talk to one, over connections of our own; answer_parser reads what comes, unpacking what is packed;
                 refusals and model_list read what it says beside answers, model_handlers joins lists
passthrough, passthrough_handlers, upload
                 what nobody can judge, where the operator allows it
token_handlers   how long a request is, which is a number and nothing to judge
pump, driver, drive
                 an answer through its stages; what happens on the event loop, and so moves it; what is awaited of
                 that. collected is a client that gets all at once
classifier, inquiry
                 the guard streams of one response; questions to them that nobody awaits
compiled         whether the way of a chunk runs as machine code

The pure side of an answer (no I/O, no torch):

stream           one moderated response: four doors
structs          the small records that pass between its stages
framing, sse     bytes <-> events
surrogates       half characters, repaired before anyone reads them
channel, channels, escapes, folding
                 one moderated text, in each of its readings; all of a response
normalizer, splitter, pretoken, settling, retokenizer
                 text -> Qwen3 tokens that later text cannot change
gate             hold pieces in order, release what was cleared
policy, reports  risk -> verdict, as tables; what is said of it
records          one record a request
risk, errors     the words that guard and policy share; who is at fault

vocabulary/      the Qwen3 vocabulary
guard/           the engine that runs Qwen3Guard-Stream
"""

__version__ = "0.1.0"
