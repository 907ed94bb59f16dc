import { setImmediate } from 'node:timers/promises';

/**
 * Makes one question, or one commit, of those that come at almost the same time. Sixteen volumes of a set ask the
 * same things of the catalog within milliseconds; each answer would be a statement of its own, each commit a sync, on
 * the processors that guests want just then.
 */
export class Together<Question, Answer> {
  readonly #answerAll: (questions: readonly Question[]) => Promise<readonly Answer[]>;
  readonly #gathered: () => Promise<unknown>;
  #waiting: { question: Question; answer: PromiseWithResolvers<Answer> }[] = [];

  /**
   * @param answerAll in the order of the questions; where it fails, nothing of it has happened
   * @param gathered resolves when the first is to wait no longer for others
   */
  constructor(
    answerAll: (questions: readonly Question[]) => Promise<readonly Answer[]>,
    gathered: () => Promise<unknown> = setImmediate,
  ) {
    this.#answerAll = answerAll;
    this.#gathered = gathered;
  }

  ask(question: Question): Promise<Answer> {
    const answer = Promise.withResolvers<Answer>();
    this.#waiting.push({ question, answer });
    if (this.#waiting.length === 1) void this.#gathered().then(() => this.#answerWaiting());
    return answer.promise;
  }

  async #answerWaiting(): Promise<void> {
    const asked = this.#waiting;
    this.#waiting = [];
    try {
      const answers = await this.#answerAll(asked.map(({ question }) => question));
      for (const [index, { answer }] of asked.entries()) answer.resolve(answers[index]);
    } catch (error) {
      // One that fails must not fail the others: each by itself.
      if (asked.length === 1) asked[0].answer.reject(error);
      else for (const { question, answer } of asked) answer.resolve(this.#answerAlone(question));
    }
  }

  async #answerAlone(question: Question): Promise<Answer> {
    const [answer] = await this.#answerAll([question]);
    return answer;
  }
}
