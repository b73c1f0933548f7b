/**
 * The client of Tidewire for browsers, Node and React Native.
 *
 * @packageDocumentation
 */
export { Tidewire, type ClientEvents, type ClientState } from './client.js';
export { TidewireError, type ErrorCode } from './errors.js';
export type { Gap, Lost, Message, Moved, Recovered } from './message.js';
export type { Options, WebSocketLike } from './options.js';
export { after, type Position, type Vector } from './position.js';
export type { Acked, PublishOptions } from './publish.js';
export type { VectorStorage } from './storage.js';
export { parseSubject, subject } from './subject.js';
export type { Subscription, SubscribeOptions, SubscriptionEvents, SubscriptionState } from './subscription.js';
