"""One trace a request for an OpenTelemetry collector, sent by a thread of its own.

endpoint    where to, of the settings and the standard variables
context     W3C traceparent: read, written
request     what is noted of a request while it is served
answer      what an upstream says of its answer beside its text
spans       a finished request as spans, by the gen_ai conventions
exporter    the queue and the thread
otlp        spans as OTLP; needs the packages of weir-proxy[otel]
checkup     whether they arrive, for `weir doctor`
"""
